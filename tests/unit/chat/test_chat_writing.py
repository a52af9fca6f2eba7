"""What the page shows of a request, and that leaving takes the request back."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from lmbatch.chat.about import about
from lmbatch.chat.options import PASSWORD, USER, ChatOptions, login_from
from lmbatch.chat.presets import FIRST, PRESETS, settings_from
from lmbatch.chat.writing import write
from lmbatch.config import GenerateConfig
from lmbatch.errors import ConfigError, UsageError
from lmbatch.infer import load_for_generation
from lmbatch.infer.batching import GenerationQueue, QueueLimits
from support.tiny_corpus import write_corpus
from support.tiny_export import CONTEXT, write_export

LIMITS = {"characters": 5000, "seconds": 100.0}
LIKELIEST = GenerateConfig(max_new_tokens=12, temperature=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_export(tmp_path_factory.mktemp("writing") / "export")


@pytest.fixture(scope="module")
def queue(folder):
    with GenerationQueue(load_for_generation(folder), QueueLimits(rows=4, waiting=1)) as started:
        yield started


def pictures(queue, prompt, settings, **limits):
    async def all_of_them():
        return [picture async for picture in write(queue, prompt, settings, **{**LIMITS, **limits})]

    return asyncio.run(all_of_them())


def test_the_last_picture_has_the_text_of_the_generator(queue):
    seen = pictures(queue, "丁一", LIKELIEST)
    wanted = queue.generator.generate(["丁一"], LIKELIEST)[0]
    assert "丁一" + seen[-1].text == wanted
    assert seen[-1].over
    assert not any(picture.over for picture in seen[:-1])
    assert "12 tokens" in seen[-1].note
    assert "the limit was reached" in seen[-1].note


def test_beams_say_that_they_search(queue):
    seen = pictures(queue, "丁一", GenerateConfig(max_new_tokens=5, temperature=0, num_beams=3))
    assert "Searching with 3 beams" in seen[0].note
    assert len(seen[-1].text) == 5


def test_the_seed_that_was_used_is_shown(queue):
    assert "seed 7" in pictures(queue, "丁一", GenerateConfig(max_new_tokens=3, temperature=1, seed=7))[-1].note


def test_a_prompt_beyond_the_context_is_said_to_be_cut(queue):
    note = pictures(queue, "丁" * (CONTEXT + 7), GenerateConfig(max_new_tokens=10, temperature=0))[-1].note
    assert "only its last 2,038 tokens are seen, 17 are left out" in note


@pytest.mark.parametrize(
    ("prompt", "words"), [("", "no prompt"), (" \n", "no prompt"), ("丁" * 5001, "5,001 characters")]
)
def test_a_prompt_that_is_refused_never_reaches_the_queue(queue, prompt, words):
    asleep = GenerationQueue(queue.generator)  # its thread was never started, so what it takes would stay there

    async def first():
        async with aclosing(write(asleep, prompt, LIKELIEST, **LIMITS)) as seen:
            return await anext(seen)

    picture = asyncio.run(first())
    assert words in picture.note
    assert picture.failed
    assert asleep.waiting == 0


def test_too_long_a_wait_is_said_in_words(queue):
    last = pictures(queue, "丁一", GenerateConfig(max_new_tokens=1500, temperature=0), seconds=0.3)[-1]
    assert last.failed
    assert "not ready within 0.3 seconds" in last.note


def test_a_full_queue_is_said_in_words(queue):
    asleep = GenerationQueue(queue.generator, QueueLimits(rows=1, waiting=1))  # its thread was never started

    async def two():
        async with aclosing(write(asleep, "丁", LIKELIEST, **LIMITS)) as first:
            await anext(first)
            return [picture async for picture in write(asleep, "丁", LIKELIEST, **LIMITS)]

    (picture,) = asyncio.run(two())
    assert picture.failed
    assert "Try again in a moment." in picture.note


def test_closing_and_cancelling_take_the_request_back(queue):
    long = GenerateConfig(max_new_tokens=1500, temperature=0.8)

    async def leave():
        async with aclosing(write(queue, "丁", long, **LIMITS)) as seen:
            async for picture in seen:
                if picture.text:
                    break

    async def cancelled():
        async def watch():
            async for _ in write(queue, "丁", long, **LIMITS):
                pass

        task = asyncio.ensure_future(watch())
        while not queue.running:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    for way in (leave, cancelled):
        before = queue.stats.requests["cancelled"]
        asyncio.run(way())
        while queue.running or queue.waiting:
            pass
        assert queue.stats.requests["cancelled"] == before + 1


def test_a_stop_leaves_what_there_is_of_the_text(queue):
    async def stopped():
        stop, seen = asyncio.Event(), []
        async for picture in write(queue, "丁", GenerateConfig(max_new_tokens=1500), **LIMITS, stop=stop):
            seen.append(picture)
            if picture.text:
                stop.set()
        return seen

    *_, before, last = asyncio.run(stopped())
    assert last.text.startswith(before.text)
    assert "Stopped after" in last.note
    assert last.over
    assert len(last.text) < 1500


def test_beams_can_be_stopped(queue):
    async def stopped():
        stop, seen = asyncio.Event(), []
        async for picture in write(queue, "丁", GenerateConfig(max_new_tokens=1500, num_beams=5), **LIMITS, stop=stop):
            seen.append(picture)
            stop.set()
        return seen

    assert asyncio.run(stopped())[-1].note == "Stopped."


def test_the_first_preset_is_that_of_the_published_walk_through():
    preset = PRESETS[FIRST]
    assert (preset.num_beams, preset.no_repeat_ngram_size, preset.early_stopping) == (5, 2, True)


def test_values_of_the_controls_become_settings():
    settings = settings_from({"max_new_tokens": 20.0, "num_beams": 2, "temperature": 0.5, "seed": None}, new_tokens=20)
    assert (settings.max_new_tokens, settings.num_beams, settings.temperature) == (20, 2, 0.5)
    assert settings.seed != settings_from({"seed": None}, new_tokens=200).seed


@pytest.mark.parametrize(
    "values",
    [
        {"max_new_tokens": 21}, {"max_new_tokens": 10, "num_beams": 11}, {"max_new_tokens": "x"},
        {"max_new_tokens": 10, "temperature": float("nan")}, {"max_new_tokens": float("inf")},
        {"max_new_tokens": 10, "top_p": 7}, {"max_new_tokens": 10, "seed": -1}, {"max_new_tokens": None},
    ],
)  # fmt: skip
def test_values_that_our_page_would_not_send_are_refused(values):
    with pytest.raises(ConfigError):
        settings_from(values, new_tokens=20)


def test_what_is_known_of_a_model_comes_from_its_card_or_from_itself(queue, folder, tmp_path):
    known = about(folder, queue.generator)
    assert known.name == "tiny_zh"
    assert dict(known.rows)["Manifest digest"] == "sha256:0123456789abcdef"
    bare = about(tmp_path, queue.generator)
    assert bare.name == tmp_path.name
    assert dict(bare.rows)["Context"] == "2,048 tokens"
    write_corpus(tmp_path)
    assert dict(about(tmp_path, queue.generator).rows)["Manifest digest"].startswith("sha256:")


def test_half_a_login_is_refused():
    assert login_from({}) is None
    assert login_from({USER: "a", PASSWORD: "b"}) == ("a", "b")
    with pytest.raises(UsageError, match=PASSWORD):
        login_from({USER: "a"})
    assert ChatOptions(host="0.0.0.0").is_open
    assert not ChatOptions(host="0.0.0.0", login=("a", "b")).is_open
    assert not ChatOptions().is_open
