"""One request on its way through the worker: its rows, the pieces it has handed out, and when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from random import Random

from lmbatch.errors import DeadlineError, GenerationError, LmbatchError
from lmbatch.infer.batching.decode import Row
from lmbatch.infer.batching.growing import GrowingText
from lmbatch.infer.batching.requests import Finish, GenerationRequest, Piece, Reply, Sample
from lmbatch.infer.batching.stats import Outcome
from lmbatch.infer.generate import Completion, TextGenerator

Event = Piece | Reply | LmbatchError


class Growth:
    """One sample: its row, what of it was shown, and in the end the sample itself."""

    def __init__(self, index: int, row: Row, text: GrowingText, *, eod_id: int, watched: bool) -> None:
        self.row = row
        self.sample: Sample | None = None
        self._index = index
        self._text = text
        self._eod_id = eod_id
        self._watched = watched  # somebody wants to see it grow, or a stop string may end it
        self._counted = 0

    def advance(self) -> Piece | None:
        """Look at the row's newest token. None if there is nothing to show."""
        ended = self.row.new[-1] == self._eod_id
        over = ended or len(self.row.new) >= self.row.window.new
        if not over and not self._watched:
            return None
        ids = self.row.new[:-1] if ended else self.row.new
        text = self._text.finish(ids) if over else self._text.grow(ids)
        if not (over or self._text.stopped):
            return self._piece(text, len(ids), None) if text else None
        finish: Finish = "stop" if ended or self._text.stopped else "length"
        self.sample = Sample(self._text.shown, len(ids), finish)
        return self._piece(text, len(ids), finish)

    def end(self, completion: Completion) -> Piece:
        """Take over a text that was made elsewhere."""
        text = self._text.end_with(completion.continuation)
        finish: Finish = "stop" if completion.ended or self._text.stopped else "length"
        self.sample = Sample(text, completion.tokens, finish)
        return self._piece(text, completion.tokens, finish)

    def _piece(self, text: str, tokens: int, finish: Finish | None) -> Piece:
        fresh, self._counted = tokens - self._counted, tokens
        return Piece(self._index, text, fresh, finish)


class Job:
    """A request with its rows. Made in the caller's thread, moved on by the worker; ``emit`` is called by the worker.

    ``streamed``: pieces are handed out as they come; the reply follows in any case.
    """

    def __init__(
        self, request: GenerationRequest, generator: TextGenerator, emit: Callable[[Event], None], *, streamed: bool
    ) -> None:
        self.request = request
        self.window = generator.window(request.prompt, request.settings.max_new_tokens)
        self.alone = request.settings.num_beams > 1 or generator.is_stateful
        self.outcome: Outcome | None = None
        self._emit = emit
        self._streamed = streamed
        self._deadline = time.monotonic() + request.seconds
        watched = streamed or bool(request.stop)
        self.growths = [self._growth(index, generator, watched) for index in range(request.samples)]

    @property
    def rows(self) -> list[Row]:
        """The rows of the samples that are not finished."""
        return [growth.row for growth in self.growths if growth.sample is None]

    @property
    def gone(self) -> bool:
        """Nobody waits for it any more; tells the caller so if it was too slow."""
        if self.outcome is None and time.monotonic() > self._deadline:
            self.fail(DeadlineError(f"the text was not ready within {self.request.seconds:g} seconds"))
        return self.outcome is not None

    def cancel(self) -> None:
        """The caller has left. May be called from any thread, and after the end."""
        if self.outcome is None:
            self.outcome = "cancelled"
            self._emit(GenerationError("the request was cancelled"))  # whoever still waits for it is woken

    def advance(self) -> None:
        """Hand out what the newest token of each row has brought."""
        self._hand_out(piece for growth in self.growths if growth.sample is None and (piece := growth.advance()))

    def end(self, completions: Sequence[Completion]) -> None:
        """Hand out texts that were made elsewhere."""
        self._hand_out(growth.end(completion) for growth, completion in zip(self.growths, completions, strict=True))

    def fail(self, error: LmbatchError) -> None:
        """Answer with an error; nothing comes after it."""
        self.outcome = "expired" if isinstance(error, DeadlineError) else "failed"
        self._emit(error)

    def _hand_out(self, pieces: Iterable[Piece]) -> None:
        for piece in pieces:
            if self._streamed:
                self._emit(piece)
        samples = tuple(growth.sample for growth in self.growths if growth.sample is not None)
        if len(samples) == len(self.growths):
            self.outcome = "done"
            self._emit(Reply(self.request.prompt, len(self.window.ids), self.window.dropped, samples))

    def _growth(self, index: int, generator: TextGenerator, watched: bool) -> Growth:
        settings = self.request.settings
        row = Row(self.window, settings, Random(f"{settings.seed}/{index}"))  # noqa: S311  (no secret is drawn)
        text = GrowingText(lambda ids: generator.continuation(self.request.prompt, self.window, ids), self.request.stop)
        return Growth(index, row, text, eod_id=generator.eod_id, watched=watched)
