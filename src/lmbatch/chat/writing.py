"""One request of a user, from the prompt to the last piece of text, in words that a page can show. No Gradio here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from lmbatch.config import GenerateConfig
from lmbatch.errors import LmbatchError, UsageError
from lmbatch.infer.batching import GenerationQueue, GenerationRequest, Piece

_PICTURE_SECONDS = 0.1  # a browser gains nothing from more than ten pictures a second


@dataclass(frozen=True, slots=True)
class Picture:
    """What a user sees at a moment: the text so far, and a line below it. ``over``: it is the last one."""

    text: str
    note: str
    over: bool = False
    failed: bool = False


async def write(
    queue: GenerationQueue, prompt: str, settings: GenerateConfig, *, characters: int, seconds: float,
    stop: asyncio.Event | None = None,
) -> AsyncGenerator[Picture]:  # fmt: skip
    """Continue ``prompt``. Closing the generator, or cancelling its task, takes the request back.

    ``stop`` takes it back as well, and leaves what there is of the text in a last picture. Never raises a
    LmbatchError: it is the last picture's note.
    """
    text = ""
    try:
        _check(prompt, characters)
        async with aclosing(_write(queue, prompt, settings, seconds, stop or asyncio.Event())) as pictures:
            async for picture in pictures:
                text = picture.text
                yield picture
    except LmbatchError as error:
        yield Picture(text, in_words(error), over=True, failed=True)


def in_words(error: LmbatchError) -> str:
    """An error and its remedy as sentences."""
    sentences = [error.message, *([error.remedy] if error.remedy else [])]
    return " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)


def _check(prompt: str, characters: int) -> None:
    if not prompt.strip():
        raise UsageError("there is no prompt", remedy="write the beginning of a text")
    if len(prompt) > characters:
        raise UsageError(
            f"the prompt has {len(prompt):,} characters, and at most {characters:,} are taken", remedy="shorten it"
        )


async def _write(
    queue: GenerationQueue, prompt: str, settings: GenerateConfig, seconds: float, stop: asyncio.Event
) -> AsyncGenerator[Picture]:
    start = time.monotonic()
    ticket = queue.submit(GenerationRequest(prompt, settings, seconds=seconds), streamed=True)
    hint = _hint(queue, prompt, settings, ticket.dropped)
    text, tokens, shown = "", 0, start
    async with aclosing(_with_pauses(ticket.pieces(), stop)) as pieces:
        yield Picture("", _under_way(queue, settings, start) + hint)
        async for piece in pieces:
            text, tokens = text + (piece.text if piece else ""), tokens + (piece.tokens if piece else 0)
            if piece is not None and piece.finish is not None:
                yield Picture(text, _result(tokens, start, settings, piece.finish) + hint, over=True)
                return
            if piece is None or time.monotonic() - shown >= _PICTURE_SECONDS:
                shown = time.monotonic()
                note = _speed(tokens, start) if tokens else _under_way(queue, settings, start)
                yield Picture(text, note + hint)
    yield Picture(text, f"Stopped after {tokens:,} tokens." if tokens else "Stopped.", over=True)


async def _with_pauses(pieces: AsyncGenerator[Piece], stop: asyncio.Event) -> AsyncGenerator[Piece | None]:
    """The pieces until ``stop``, and a None for every second without one: there still is something to say then."""
    waiting = asyncio.ensure_future(stop.wait())
    piece: asyncio.Future[Piece] | None = None
    try:
        while not stop.is_set():
            piece = piece or asyncio.ensure_future(anext(pieces))
            both: set[asyncio.Future[Any]] = {piece, waiting}
            await asyncio.wait(both, timeout=1, return_when=asyncio.FIRST_COMPLETED)
            if not piece.done():
                yield None
                continue
            done, piece = piece, None
            yield done.result()
    finally:
        left = [task for task in (piece, waiting) if task is not None]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        await pieces.aclose()


def _hint(queue: GenerationQueue, prompt: str, settings: GenerateConfig, dropped: int) -> str:
    window, context = queue.generator.window(prompt, settings.max_new_tokens), queue.generator.context
    lines = []
    if dropped:
        lines.append(
            f" The prompt is too long for the model's context of {context:,} tokens: only its last "
            f"{len(window.ids):,} tokens are seen, {dropped:,} are left out."
        )
    if window.new < settings.max_new_tokens:
        lines.append(f" At most {window.new:,} new tokens fit into the context.")
    return "".join(lines)


def _under_way(queue: GenerationQueue, settings: GenerateConfig, start: float) -> str:
    what = f"Searching with {settings.num_beams} beams" if settings.num_beams > 1 else "Writing"
    others = queue.running + queue.waiting - 1
    company = f", beside {others} other request{'s' if others > 1 else ''}" if others > 0 else ""
    return f"{what}{company} … {time.monotonic() - start:.0f} s."


def _speed(tokens: int, start: float) -> str:
    passed = time.monotonic() - start
    return f"{tokens:,} tokens in {passed:.1f} s ({tokens / max(passed, 1e-9):,.0f} a second) …"


def _result(tokens: int, start: float, settings: GenerateConfig, finish: str) -> str:
    why = "the model ended the text" if finish == "stop" else "the limit was reached"
    seed = f", seed {settings.seed}" if settings.temperature > 0 else ""
    return f"{tokens:,} tokens in {time.monotonic() - start:.1f} s: {why}{seed}."
