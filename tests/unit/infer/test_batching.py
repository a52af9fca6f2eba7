"""Many requests on one model: each gets what it would get alone, and none holds up or spoils another."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest
import torch
from transformers import BloomConfig, BloomForCausalLM, Qwen2Config, Qwen2ForCausalLM

from lmbatch.config import GenerateConfig
from lmbatch.errors import ConfigError, DeadlineError, GenerationError, QueueFullError
from lmbatch.infer import TextGenerator
from lmbatch.infer.batching import GenerationQueue, GenerationRequest, Piece, QueueLimits, Reply

PROMPTS = ["第一条 ", "国家保护", "第一条 为了保护公民的权利，制定", "H", "", "Hello world, the"]
LONG = "Hello world, the law protects people. " * 3  # longer than the context


def settings(**changes: Any) -> GenerateConfig:
    return GenerateConfig(**({"max_new_tokens": 12, "temperature": 0} | changes))


def sampling(seed: int, **changes: Any) -> GenerateConfig:
    return settings(**({"temperature": 1.5, "seed": seed} | changes))


@pytest.fixture(scope="module")
def generator(model, tokenizer_folder):
    return TextGenerator(model, tokenizer_folder, context=48)


@pytest.fixture(scope="module")
def other_generators(tokenizer_folder):
    """One with rotary positions and shared heads, one whose only positions are in its mask (ALiBi)."""
    torch.manual_seed(0)
    size = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 2}
    ends: dict[str, Any] = {"eos_token_id": 0, "bos_token_id": 0, "pad_token_id": 0}
    qwen = Qwen2Config(**size, intermediate_size=64, num_attention_heads=4, num_key_value_heads=2, **ends)
    bloom = BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=4, **ends)
    models = [Qwen2ForCausalLM(qwen), BloomForCausalLM(bloom)]
    return [TextGenerator(model.eval(), tokenizer_folder, context=48) for model in models]


def in_queue(generator: TextGenerator, work: Any, **limits: Any) -> Any:
    """The result of the coroutine ``work(queue)``, run beside a queue."""

    async def run() -> Any:
        with GenerationQueue(generator, QueueLimits(**limits)) as queue:
            result = await asyncio.wait_for(work(queue), 60)
            await settled(queue)
            return result

    return asyncio.run(run())


async def settled(queue: GenerationQueue) -> None:
    """Everything that was left over is gone from the queue."""
    while queue.waiting or queue.running or queue.rows:
        await asyncio.sleep(0.002)


def together(queue: GenerationQueue, *requests: GenerationRequest) -> Coroutine[Any, Any, list[Reply]]:
    async def gather() -> list[Reply]:
        return list(await asyncio.gather(*map(queue.complete, requests)))

    return gather()


async def pieces_of(queue: GenerationQueue, request: GenerationRequest) -> list[Piece]:
    return [piece async for piece in queue.stream(request)]


@pytest.mark.parametrize(
    "changes", [{}, {"repetition_penalty": 1.7}, {"no_repeat_ngram_size": 2}, {"num_beams": 3}], ids=str
)
def test_many_at_once_get_what_the_plain_generator_gives(generator, changes):
    config = settings(**changes)
    requests = [GenerationRequest(prompt, config) for prompt in [*PROMPTS, LONG]]
    replies = in_queue(generator, lambda queue: together(queue, *requests))
    for reply, expected in zip(replies, generator.complete([*PROMPTS, LONG], config), strict=True):
        assert reply.texts == [expected.text]
        assert reply.samples[0].tokens == expected.tokens
        assert reply.samples[0].finish == ("stop" if expected.ended else "length")


def test_other_architectures_too(other_generators):
    config = settings(max_new_tokens=20)
    for generator in other_generators:
        requests = [GenerationRequest(prompt, config) for prompt in PROMPTS]
        replies = in_queue(generator, lambda queue, requests=requests: together(queue, *requests))
        assert [reply.texts[0] for reply in replies] == generator.generate(PROMPTS, config)


def test_rows_that_join_and_leave_in_the_middle_change_nothing(generator):
    """Prompts and lengths of all sizes, a few places only, and newcomers while others are under way."""
    wanted = [
        GenerationRequest(
            prompt, sampling(number, max_new_tokens=3 + 5 * (number % 5), top_p=0.95), samples=1 + number % 3
        )
        for number, prompt in enumerate(PROMPTS * 4)
    ]

    async def trickle(queue: GenerationQueue) -> list[Reply]:
        tasks = []
        for request in wanted:
            tasks.append(asyncio.create_task(queue.complete(request)))
            await asyncio.sleep(0.003)
        return list(await asyncio.gather(*tasks))

    async def one_by_one(queue: GenerationQueue) -> list[Reply]:
        return [await queue.complete(request) for request in wanted]

    assert in_queue(generator, trickle, rows=5) == in_queue(generator, one_by_one, gather_seconds=0)


def test_a_seed_repeats_its_text_and_its_samples_differ(generator):
    def draw(seed: int) -> list[str]:
        request = GenerationRequest("第一条", sampling(seed, temperature=3.0), samples=4)
        texts: list[str] = in_queue(generator, lambda queue: queue.complete(request)).texts
        return texts

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert len(set(draw(1))) == 4


def test_samples_are_drawn_with_the_models_probabilities(generator):
    """The first token of many samples, against the distribution that the model gives."""
    config = sampling(5, max_new_tokens=1, temperature=1.0, top_k=3)
    replies = in_queue(
        generator, lambda queue: together(queue, *(GenerationRequest("国", config.model_copy(update={"seed": seed}), 30)
                                                   for seed in range(20)))
    )  # fmt: skip
    texts = [sample.text for reply in replies for sample in reply.samples]
    ids = torch.tensor([generator.window("国", 1).ids])
    with torch.no_grad():
        best = generator.model(ids).logits[0, -1].topk(3)
    expected: Counter[str] = Counter()  # two tokens may both be halves of characters, which look the same
    for probability, token in zip(best.values.softmax(0).tolist(), best.indices.tolist(), strict=True):
        expected[generator.continuation("国", generator.window("国", 1), [token])] += probability
    assert set(texts) <= set(expected)
    for text, probability in expected.items():
        assert abs(texts.count(text) / len(texts) - probability) < 0.07


def test_a_batch_is_really_one(generator):
    async def work(queue: GenerationQueue) -> float:
        await together(queue, *(GenerationRequest(prompt, settings()) for prompt in PROMPTS))
        return queue.stats.row_steps / queue.stats.steps

    assert in_queue(generator, work) > 3


def test_newcomers_join_a_batch_that_is_under_way(generator):
    async def work(queue: GenerationQueue) -> tuple[bool, int]:
        long = queue.submit(GenerationRequest("国家", settings(max_new_tokens=44)), streamed=True)
        pieces = long.pieces()
        await anext(pieces)
        await queue.complete(GenerationRequest("第一条", settings(max_new_tokens=2)))
        rest = [piece async for piece in pieces]
        return rest[-1].finish is not None, len(rest)

    ended, rest = in_queue(generator, work)
    assert ended
    assert rest > 5  # the long one was still under way when the short one was answered


@pytest.mark.parametrize("temperature", [0, 2.5])
def test_pieces_put_together_are_the_text(generator, temperature):
    config = settings(max_new_tokens=40, temperature=temperature)
    request = GenerationRequest("国家", config, samples=3)

    async def work(queue: GenerationQueue) -> tuple[list[Piece], Reply]:
        return await pieces_of(queue, request), await queue.complete(request)

    pieces, reply = in_queue(generator, work)
    for index, sample in enumerate(reply.samples):
        own = [piece for piece in pieces if piece.index == index]
        assert "".join(piece.text for piece in own) == sample.text
        assert sum(piece.tokens for piece in own) == sample.tokens
        assert [piece.finish for piece in own] == [None] * (len(own) - 1) + [sample.finish]


def test_a_text_ends_before_its_stop_string(generator):
    (whole,) = in_queue(generator, lambda queue: queue.complete(GenerationRequest("第一条", settings()))).samples
    stop = whole.text[4:6]

    async def work(queue: GenerationQueue) -> tuple[Reply, list[Piece], Reply]:
        request = GenerationRequest("第一条", settings(), stop=("不会来的", stop))
        beams = GenerationRequest("第一条", settings(num_beams=2), stop=(stop[0],))
        return await queue.complete(request), await pieces_of(queue, request), await queue.complete(beams)

    reply, pieces, beams = in_queue(generator, work)
    expected = whole.text[: whole.text.index(stop)]
    assert reply.samples[0].text == expected
    assert reply.samples[0].finish == "stop"
    assert reply.samples[0].tokens < whole.tokens
    assert "".join(piece.text for piece in pieces) == expected
    assert stop[0] not in beams.samples[0].text


def test_beams_do_not_hold_up_the_others(generator):
    async def work(queue: GenerationQueue) -> tuple[bool, str]:
        beams = asyncio.create_task(queue.complete(GenerationRequest("国家", settings(num_beams=8, max_new_tokens=44))))
        await asyncio.sleep(0.02)
        quick = await queue.complete(GenerationRequest("第一条", settings(max_new_tokens=3)))
        return beams.done(), quick.texts[0] + (await beams).texts[0]

    still_running, texts = in_queue(generator, work)
    alone = [settings(max_new_tokens=3), settings(num_beams=8, max_new_tokens=44)]
    assert not still_running
    assert texts == "".join(generator.generate([p], c)[0] for p, c in zip(["第一条", "国家"], alone, strict=True))


class SlowModel(torch.nn.Module):
    """The model, each of whose steps waits for ``gate``."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner, self.config, self.gate = model, model.config, threading.Event()
        self.device = model.device
        self.fails = False

    def get_input_embeddings(self) -> Any:
        return self.inner.get_input_embeddings()

    def forward(self, input_ids, attention_mask, position_ids, past_key_values, use_cache, logits_to_keep) -> Any:
        self.gate.wait(10)  # a test that fails before it opens the gate shall end all the same
        if self.fails:
            raise RuntimeError("out of memory")
        return self.inner(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=use_cache,
            past_key_values=past_key_values, logits_to_keep=logits_to_keep,
        )  # fmt: skip


@pytest.fixture
def slow(model, tokenizer_folder):
    return TextGenerator(SlowModel(model), tokenizer_folder, context=48)


def test_a_full_queue_refuses_at_once_and_recovers(slow):
    async def work(queue: GenerationQueue) -> int:
        first = asyncio.create_task(queue.complete(GenerationRequest("国", settings())))
        while not queue.running:
            await asyncio.sleep(0.001)
        waiting = [queue.submit(GenerationRequest("国", settings())) for _ in range(3)]
        with pytest.raises(QueueFullError, match="3 requests are waiting"):
            queue.submit(GenerationRequest("国", settings()))
        slow.model.gate.set()
        await first
        await asyncio.gather(*(ticket.reply() for ticket in waiting))
        await queue.complete(GenerationRequest("国", settings()))
        return queue.stats.requests["refused"]

    assert in_queue(slow, work, rows=1, waiting=3) == 1


def test_who_leaves_makes_room(slow):
    """The caller of a running request and one of a waiting request are cancelled; the third gets its text."""

    async def work(queue: GenerationQueue) -> dict[str, int]:
        tasks = [
            asyncio.create_task(queue.complete(GenerationRequest("国", settings(max_new_tokens=40)))) for _ in range(3)
        ]
        while not queue.running:
            await asyncio.sleep(0.001)
        tasks[0].cancel()
        tasks[1].cancel()
        await asyncio.gather(*tasks[:2], return_exceptions=True)
        slow.model.gate.set()
        wanted = (await tasks[2]).samples[0].tokens
        await settled(queue)
        assert wanted > 20
        assert queue.stats.new_tokens < wanted + 5
        return dict(queue.stats.requests)

    assert in_queue(slow, work, rows=1, gather_seconds=0) == {"cancelled": 2, "done": 1}


def test_leaving_a_stream_stops_it(generator):
    async def work(queue: GenerationQueue) -> dict[str, int]:
        stream = queue.stream(GenerationRequest("国家", settings(max_new_tokens=44)))
        await anext(stream)
        await stream.aclose()
        await settled(queue)
        return dict(queue.stats.requests)

    assert in_queue(generator, work) == {"cancelled": 1}


@pytest.mark.parametrize("beams", [1, 2])
def test_a_deadline_ends_a_request(generator, beams):
    request = GenerationRequest("国家", settings(max_new_tokens=44, num_beams=beams), seconds=0.01)

    async def work(queue: GenerationQueue) -> dict[str, int]:
        with pytest.raises(DeadlineError, match=r"within 0\.01 seconds"):
            await queue.complete(request)
        await settled(queue)
        await queue.complete(GenerationRequest("国家", settings()))
        await settled(queue)
        return dict(queue.stats.requests)

    assert in_queue(generator, work) == {"expired": 1, "done": 1}


def test_a_failing_model_fails_its_texts_only(slow):
    async def work(queue: GenerationQueue) -> None:
        slow.model.fails = True
        slow.model.gate.set()
        with pytest.raises(GenerationError, match="out of memory"):
            await queue.complete(GenerationRequest("国", settings()))
        slow.model.fails = False
        assert (await queue.complete(GenerationRequest("国", settings()))).samples[0].tokens == 12

    in_queue(slow, work)


def test_stopping_leaves_nobody_without_an_answer(slow):
    async def work() -> None:
        queue = GenerationQueue(slow, QueueLimits(rows=1))
        queue.start()
        tickets = [queue.submit(GenerationRequest("国", settings(max_new_tokens=40))) for _ in range(2)]
        while not queue.running:
            await asyncio.sleep(0.001)
        assert not await queue.drain(0.02)  # the model stands still
        with pytest.raises(QueueFullError, match="stopping"):
            queue.submit(GenerationRequest("国", settings()))
        threading.Timer(0.05, slow.model.gate.set).start()
        await asyncio.to_thread(queue.stop)
        for ticket in tickets:
            with pytest.raises(GenerationError, match="stopped before"):
                await ticket.reply()
        assert not queue.alive

    asyncio.run(work())


def test_draining_lets_the_texts_end(generator):
    async def work(queue: GenerationQueue) -> Reply:
        ticket = queue.submit(GenerationRequest("国家", settings(max_new_tokens=40)))
        assert await queue.drain(30)
        return await asyncio.wait_for(ticket.reply(), 1)

    assert in_queue(generator, work).texts == generator.generate(["国家"], settings(max_new_tokens=40))


def test_more_samples_than_places_are_refused(generator):
    async def work(queue: GenerationQueue) -> None:
        with pytest.raises(ConfigError, match="at most 2"):
            queue.submit(GenerationRequest("国", settings(), samples=3))

    in_queue(generator, work, rows=2)


def test_what_was_generated_moves_no_random_generator(generator):
    torch.manual_seed(7)
    before = torch.get_rng_state()
    in_queue(generator, lambda queue: queue.complete(GenerationRequest("国", sampling(1))))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_request_waits_until_all_its_samples_have_room(generator):
    """Four samples do not fit beside one; nothing later slips by, so it comes to its turn."""
    requests = [
        GenerationRequest("国", settings(max_new_tokens=n), samples=k) for n, k in ((30, 2), (5, 4), (5, 1), (5, 1))
    ]

    async def work(queue: GenerationQueue) -> list[int]:
        order: list[int] = []

        async def one(number: int) -> None:
            await queue.complete(requests[number])
            order.append(number)

        await asyncio.gather(*map(one, range(4)))
        return order

    order = in_queue(generator, work, rows=4)
    assert order.index(1) < order.index(2)
