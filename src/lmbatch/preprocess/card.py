"""The data card beside the manifest: what the corpus is and how it was made, for people and for dataset hubs.

The format is that of Hugging Face's dataset cards: Markdown with YAML front matter
(https://github.com/huggingface/hub-docs/blob/main/datasetcard.md).
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Sequence
from importlib import metadata
from typing import Any

import yaml

from lmbatch import __version__
from lmbatch.config import CleaningRules, PreprocessConfig
from lmbatch.errors import ObjectNotFoundError
from lmbatch.preprocess.plan import Plan
from lmbatch.preprocess.profile import folder_depth, name_at
from lmbatch.store import SPLITS, Ledger, Manifest, Store

CARD_KEY = "DATA_CARD.md"
_MOST_SOURCES = 20
_BAR = r"\|"  # in a table, in code too
_LIBRARIES = ("tokenizers", "orjson", "pyarrow", "numpy")  # with these the texts are read and the bytes written


def write_card(store: Store, plan: Plan, manifest: Manifest, engines: Iterable[str], *, anew: bool = False) -> None:
    """Write the card, unless one of this very manifest stands there: somebody may have worked on it.

    ``anew`` replaces that one too. The card is no part of what `verify` checks or training reads.
    """
    if not anew:
        try:
            if manifest.digest in store.read(CARD_KEY).decode(errors="replace"):
                return
        except ObjectNotFoundError:
            pass
    store.put(CARD_KEY, data_card(plan, manifest, engines).encode())


def data_card(plan: Plan, manifest: Manifest, engines: Iterable[str]) -> str:
    """The card as a pure function of the plan, the manifest, and the versions on this machine.

    It names no place: the same corpus has the same card in every store.
    """
    config = plan.config
    parts = [
        f"---\n{yaml.safe_dump(_front(config, manifest), sort_keys=False, allow_unicode=True)}---",
        f"# {config.corpus.name}",
        config.corpus.description.strip() or "A text corpus, as token shards for training language models.",
        f"Digest `{manifest.digest}`. {_license(config)}",
        "## Counts",
        _counts(manifest),
        "## What became of every record",
        _ledger(manifest.ledger),
        "## Sources",
        _sources(plan),
        "## How it was made",
        "\n".join(f"- {line}" for line in _making(plan, manifest)),
        "## Checking it, and training on it",
        _use(manifest),
        "## Versions",
        _versions(plan, engines),
    ]
    return "\n\n".join(parts) + "\n"


def _front(config: PreprocessConfig, manifest: Manifest) -> dict[str, Any]:
    front: dict[str, Any] = {"pretty_name": config.corpus.name}
    if config.corpus.language:
        front["language"] = list(config.corpus.language)
    front["license"] = config.corpus.license or "unknown"
    front["size_categories"] = [size_category(manifest.ledger.documents_out)]
    front["task_categories"] = ["text-generation"]
    front["tags"] = ["lmbatch", "token-shards"]
    return front


def size_category(documents: int) -> str:
    """The hub's word for a number of documents: 12,345 → "10K<n<100K"."""
    edges = ((10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M"), (10**7, "10M"), (10**8, "100M"),
             (10**9, "1B"), (10**10, "10B"), (10**11, "100B"), (10**12, "1T"))  # fmt: skip
    before = None
    for edge, name in edges:
        if documents < edge:
            return f"{before}<n<{name}" if before else f"n<{name}"
        before = name
    return f"n>{before}"


def _license(config: PreprocessConfig) -> str:
    return (
        f"License: {config.corpus.license}."
        if config.corpus.license
        else "No license is stated: whoever gives this corpus away must say under which terms (`corpus.license`)."
    )


def _counts(manifest: Manifest) -> str:
    rows = []
    for split in SPLITS:
        shards = manifest.of(split)
        if shards:
            documents, text = (sum(getattr(s, name) for s in shards) for name in ("documents", "text_bytes"))
            rows.append((split, *(f"{n:,}" for n in (documents, manifest.tokens(split), text, len(shards)))))
    return _table(("split", "documents", "tokens with EOD", "bytes of text (UTF-8)", "shards"), rows)


def _ledger(ledger: Ledger) -> str:
    total = (
        f"{ledger.records:,} records were read = {ledger.documents_out:,} documents + {ledger.records_dropped:,} "
        f"dropped + {ledger.records_quarantined:,} quarantined (they could not be read)."
    )
    rows = [
        (f"{kind}: {_code(reason)}", f"{number:,}", f"{100 * number / ledger.records:.3f} %")
        for kind, counts in (("dropped", ledger.dropped), ("quarantined", ledger.quarantined))
        for reason, number in sorted(counts.items())
    ]
    changed = [f"{_code(rule)} {number:,}" for rule, number in sorted(ledger.changed.items())]
    parts = [total, _table(("reason", "records", "of all"), rows) if rows else ""]
    parts += [f"Documents that cleaning changed, by rule: {', '.join(changed)}." if changed else ""]
    if ledger.tokens is not None:
        lost = ", ".join(f"{_code(reason)} {number:,}" for reason, number in sorted(ledger.tokens.thrown_away.items()))
        parts += [f"Of {ledger.tokens.encoded:,} tokens {ledger.tokens.lost:,} were thrown away: {lost or 'none'}."]
    return "\n\n".join(filter(None, parts))


def _sources(plan: Plan) -> str:
    sizes = {file.path: file.size for file in plan.files}
    depth = folder_depth(sizes, _MOST_SOURCES)
    groups: dict[str, tuple[int, int]] = {}
    for path, size in sizes.items():
        files, bytes_ = groups.get(name_at(path, depth), (0, 0))
        groups[name_at(path, depth)] = (files + 1, bytes_ + size)
    rows = [(_code(name), f"{files:,}", f"{size:,}") for name, (files, size) in sorted(groups.items())]
    note = f"{len(sizes):,} files, {sum(sizes.values()):,} bytes, read as `{plan.config.corpus.format}`."
    return f"{note}\n\n{_table(('file or folder', 'files', 'bytes'), rows)}"


def _making(plan: Plan, manifest: Manifest) -> Iterable[str]:
    config, tokenizer = plan.config, manifest.tokenizer
    corpus = config.corpus
    identity = _code(corpus.id_field) if corpus.id_field else "that"
    yield f"Read: the text is that of {', '.join(map(_code, corpus.text_fields))}; {identity} identifies a document."
    yield f"Cleaned: {_cleaning(config)}"
    yield f"De-duplicated: {_dedup(config)}"
    yield (
        f"Split: {100 * config.split.validation_fraction:g} % of the documents are for validation, by a hash of what "
        f"identifies a document (salt {_code(config.split.salt)})."
    )
    yield (
        f"Tokenized: {tokenizer.size:,} entries, fingerprint `{tokenizer.fingerprint}`, EOD "
        f"{_code(tokenizer.eod_token)} (id {tokenizer.eod_id}) after each document; the tokenizer lies in `tokenizer/`."
    )
    yield f"Cut: {_chunking(config)}"
    yield f"Stored: {manifest.dtype} in Megatron-LM's `.bin` and `.idx`; where a document came from: `.docs.parquet`."
    yield "Excerpts of texts are in `profiles/` and `quarantine/`: leave them out of a copy that must not hold any."
    yield f"Settings: `plan.json` holds them; fingerprint `{manifest.config}`."


def _cleaning(config: PreprocessConfig) -> str:
    rules, off = config.cleaning.rules(), CleaningRules()
    on = [f"`{name}: {_plain(value)}`" for name, value in rules if value != getattr(off, name)]
    if config.cleaning.blocked_words_sha256:
        on.append(f"`blocked_words` (sha256 {config.cleaning.blocked_words_sha256})")
    if config.cleaning.languages:
        on.append(f"`languages: {', '.join(config.cleaning.languages)}`")
    return f"preset `{config.cleaning.preset}`; " + (", ".join(on) if on else "every text is left as it is") + "."


def _dedup(config: PreprocessConfig) -> str:
    if config.dedup is None:
        return "no."
    near = config.dedup.near
    parts = ["equal texts"] if config.dedup.exact else []
    if near is not None:
        parts.append(
            f"near-duplicates (MinHash of {near.ngram}-grams, {near.bands} bands of {near.rows}, around a Jaccard "
            f"similarity of {near.threshold:.2f})"
        )
    return f"{' and '.join(parts)} are dropped; the first in the order of the input is kept."


def _chunking(config: PreprocessConfig) -> str:
    if config.chunking is None or config.chunking.length is None:
        return "no; documents stand whole, end to end."
    how = f"`{config.chunking.mode}`, at most {config.chunking.length:,} tokens to an example"
    if not config.chunking.packs:
        return f"{how}."
    return f"{how}, which holds whole documents, each with its EOD; a document is cut only if it is longer."


def _use(manifest: Manifest) -> str:
    return (
        "```\nlmbatch verify THIS_STORE    # re-reads every byte\n"
        "lmbatch report THIS_STORE    # lengths, sources and samples on one page\n```\n\n"
        "In the config of a training run; the digest makes it refuse any other corpus:\n\n"
        f"```yaml\ndata:\n  store: THIS_STORE\n  digest: {manifest.digest}\n```"
    )


def _versions(plan: Plan, engines: Iterable[str]) -> str:
    libraries = {name: metadata.version(name) for name in _LIBRARIES} | plan.libraries
    rows = [("lmbatch", __version__), ("Python", platform.python_version()), *libraries.items()]
    encoded = ", ".join(sorted(set(engines))) or "unknown"
    return f"{_table(('', 'version'), rows)}\n\nEncoded by: {encoded}."


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', _BAR) for cell in line)} |" for line in lines)


def _code(name: str) -> str:
    """A name of the corpus as code: nothing in it is Markdown or HTML."""
    plain = "".join(c if c.isprintable() else " " for c in name).replace("`", "'")
    return f"`{plain}`"


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
