"""The notes of a task while it runs."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lmbatch.config import PreprocessConfig
from lmbatch.corpus import PLACEHOLDERS, Document, Rejected, build_redactor
from lmbatch.preprocess.profile.histogram import count_all
from lmbatch.preprocess.profile.samples import Reservoir, draw_of, draws_of, excerpt, excerpt_at, excerpts
from lmbatch.preprocess.profile.schema import Sample, SampleKind, TaskProfile
from lmbatch.preprocess.profile.sources import Tally, ValueTallies, folder_depth, name_at
from lmbatch.store import Split

Amounts = npt.NDArray[np.int64]

MOST_SOURCES = 256  # names of a task's profile; with more files than that it names folders

# An excerpt that was cut may end in a piece of a number or address, which no rule recognises any more.
_CUT_NUMBER = re.compile(r"[0-9()（）+ -]*[!-~]{0,64}\Z")
_WITHHELD = "(not shown: it holds personal data that cleaning takes out)"


class Profiler:
    """Takes note of every record of a task; see ``TaskProfile`` for what comes of it.

    ``paths`` are the task's input files. A few microseconds a document, and memory for the samples alone.
    """

    def __init__(self, config: PreprocessConfig, task: str, paths: list[str]) -> None:
        self._task, self._size = task, config.report.sample_characters
        self._redact = build_redactor(config.cleaning)
        self._samples = Reservoir(config.report.samples_per_reason)
        self._depth = folder_depth(paths, MOST_SOURCES)
        self._sources: dict[str, Tally] = {}
        self._values = ValueTallies(config.report.source_field)
        self._tokens: dict[Split, dict[int, int]] = {}
        self._characters: dict[Split, dict[int, int]] = {}

    def rejected(self, record: Document | Rejected, why: Rejected) -> None:
        """A record was dropped or quarantined; ``record`` is what the reader gave."""
        kind: SampleKind = "dropped" if why.dropped else "quarantined"
        tallies = [self._source(why.path)]
        if isinstance(record, Document):
            tallies.append(self._values.of(record.metadata))
        elif self._values.name is not None:
            tallies.append(self._values.without)
        for tally in tallies:
            setattr(tally, kind, getattr(tally, kind) + 1)
        draw = self._samples.draw((kind, why.reason), draw_of(why.path, why.position))
        if draw is not None:
            self._samples.add(self._sample_of(why, kind, draw))

    def before(self, record: Document, cleaned: Document) -> str | None:
        """The text of ``record`` without personal data, if the cleaned document may become a sample of a change.

        To be given to ``written`` later, so that not every text must be kept until then.
        """
        if not cleaned.changed:
            return None
        place = draw_of(record.path, record.position)
        wanted = any(self._samples.draw(("changed", rule), place) is not None for rule in cleaned.changed)
        return self._redact(record.text) if wanted else None

    def written(
        self, documents: Sequence[Document], split: Split, *, tokens: Amounts, text_bytes: Amounts,
        before: Sequence[str | None],
    ) -> None:  # fmt: skip
        """Documents were written: of each its ``tokens`` with EOD and ``text_bytes`` of UTF-8."""
        characters = np.fromiter((len(document.text) for document in documents), np.int64, len(documents))
        count_all(self._tokens.setdefault(split, {}), tokens)
        count_all(self._characters.setdefault(split, {}), characters)
        self._count_sources(documents, tokens, text_bytes)
        self._count_values(documents, tokens, text_bytes)
        places = draws_of((document.path, document.position) for document in documents)
        for number in self._samples.candidates(("kept", ""), places):
            self._offer(documents[number], "kept", "", int(places[number]), int(tokens[number]), None)
        for number, document in enumerate(documents):
            for rule in document.changed:
                place, shown = int(places[number]), before[number]
                self._offer(document, "changed", rule, place, int(tokens[number]), shown)

    def finish(self) -> TaskProfile:
        """Everything, in a fixed order."""
        values, other = self._values.stored()
        return TaskProfile(
            task=self._task,
            tokens={split: dict(sorted(found.items())) for split, found in sorted(self._tokens.items())},
            characters={split: dict(sorted(found.items())) for split, found in sorted(self._characters.items())},
            sources={name: tally.counts() for name, tally in sorted(self._sources.items())},
            values=values,
            other_values=other,
            without_value=self._values.without.counts(),
            samples=tuple(self._samples),
        )

    def _source(self, path: str) -> Tally:
        name = name_at(path, self._depth)
        found = self._sources.get(name)
        if found is None:
            found = self._sources[name] = Tally()
        return found

    def _count_sources(self, documents: Sequence[Document], tokens: Amounts, text_bytes: Amounts) -> None:
        numbers: dict[str, list[int]] = {}
        for number, document in enumerate(documents):
            numbers.setdefault(document.path, []).append(number)
        for path, mine in numbers.items():
            self._source(path).add(len(mine), int(tokens[mine].sum()), int(text_bytes[mine].sum()))

    def _count_values(self, documents: Sequence[Document], tokens: Amounts, text_bytes: Amounts) -> None:
        if self._values.name is None:
            self._values.without.add(len(documents), int(tokens.sum()), int(text_bytes.sum()))
            return
        for document, some, size in zip(documents, tokens.tolist(), text_bytes.tolist(), strict=True):
            self._values.of(document.metadata).add(1, some, size)

    def _offer(
        self, document: Document, kind: SampleKind, reason: str, place: int, tokens: int, before: str | None
    ) -> None:
        draw = self._samples.draw((kind, reason), place)
        if draw is not None:
            self._samples.add(self._sample(document, kind, reason, draw, tokens, before))

    def _sample(
        self, document: Document, kind: SampleKind, reason: str, draw: int, tokens: int, before: str | None
    ) -> Sample:
        earlier, text = self._parts(document.text, reason, before)
        return Sample(
            kind=kind,
            reason=reason,
            draw=draw,
            path=document.path,
            position=document.position,
            text=text,
            before=earlier,
            tokens=tokens,
        )

    def _parts(self, text: str, rule: str, before: str | None) -> tuple[str | None, str]:
        if rule in PLACEHOLDERS:  # what stood there must not be shown, so what stands there now is
            return None, excerpt_at(text, text.find(PLACEHOLDERS[rule]), self._size)
        if before is None:
            return None, excerpt(text, self._size)
        return excerpts(before, text, self._size)

    def _sample_of(self, why: Rejected, kind: SampleKind, draw: int) -> Sample:
        return Sample(
            kind=kind,
            reason=why.reason,
            draw=draw,
            path=why.path,
            position=why.position,
            text=self._shown(why),
            detail=excerpt(self._redact(why.detail) or "", self._size),
        )

    def _shown(self, why: Rejected) -> str:
        found = self._redact(why.excerpt)
        if found is None:
            return _WITHHELD
        if self._redact.active and why.length > len(why.excerpt.encode("utf-8", "surrogatepass")):
            found = _CUT_NUMBER.sub("…", found, count=1)
        return excerpt(found, self._size)
