"""What the work cost, what decided its bytes, and how to do it again."""

from __future__ import annotations

import shlex

import yaml

from lmbatch.config import PreprocessConfig, identity
from lmbatch.report.corpus import CorpusReport
from lmbatch.report.html.elements import Html, element, join, section, table
from lmbatch.report.html.figures import count, duration, size


def work_section(report: CorpusReport) -> Html:
    """Time, memory, engines and the slowest tasks."""
    tokens = report.total.tokens
    pace = f"{count(tokens / report.cpu_seconds)} tokens a second" if report.cpu_seconds else "–"
    facts = [
        ("tasks done", f"{count(report.tasks_done)} of {count(report.tasks)}"),
        ("input read", f"{size(report.input_bytes_done)} of {size(report.plan.input_bytes)}"),
        ("time of all tasks together", duration(report.seconds)),
        ("processor time", f"{duration(report.cpu_seconds)} ({pace} of it)"),
        ("peak memory of a worker", size(report.peak_memory_bytes)),
        ("encoded by", ", ".join(f"{name} ({count(n)} tasks)" for name, n in report.engines.items()) or "nobody yet"),
        ("stored tokens", f"{size(report.total.stored_bytes)} in {count(report.total.shards)} shards"),
    ]
    slowest = [
        (work.task, element("code", work.place), size(work.input_bytes), duration(work.seconds),
         duration(work.cpu_seconds), size(work.peak_memory_bytes))
        for work in report.slowest
    ]  # fmt: skip
    headings = ("task", "begins at", "input", "time", "processor", "memory")
    return section(
        "work",
        "Work",
        table("Cost", ("", ""), facts),
        element("h3", "Slowest tasks") if slowest else "",
        table("Slowest tasks", headings, slowest, numbers=(2, 3, 4, 5)) if slowest else "",
    )


def settings_section(report: CorpusReport) -> Html:
    """The settings that decided the bytes, and the commands to make and check them again."""
    config, tokenizer = report.plan.config, report.plan.tokenizer
    libraries = ", ".join(f"{name} {version}" for name, version in report.plan.libraries.items())
    facts = [
        ("plan", element("code", report.plan.fingerprint)),
        ("cleaning", _cleaning(config)),
        ("tokenizer", join([f"{count(tokenizer.size)} entries, ", element("code", tokenizer.fingerprint)])),
        ("end of a document", element("code", f"{tokenizer.eod_token} (id {tokenizer.eod_id})")),
        ("stored as", report.plan.dtype),
        ("validation", f"{100 * config.split.validation_fraction:g} % of documents, by a hash of each"),
        ("versions that the text depends on", libraries or "none"),
    ]
    return section(
        "settings",
        "Settings, and how to do it again",
        table("Settings", ("", ""), facts),
        element("p", "With the settings below as ", element("code", "corpus.yaml"), ":"),
        element("pre", element("code", commands(report)), tabindex="0"),
        element("details", element("summary", "corpus.yaml"), element("pre", settings_yaml(config), tabindex="0")),
    )


def commands(report: CorpusReport) -> str:
    """Shell lines that make the corpus from the same input, and check what is there."""
    store = shlex.quote(report.store)
    return (
        f"lmbatch preprocess --config corpus.yaml --raw {shlex.quote(report.plan.raw)} --store NEW_STORE\n"
        f"lmbatch verify {store}\n"
        f"lmbatch report {store}"
    )


def settings_yaml(config: PreprocessConfig) -> str:
    """What decides the bytes, and the two paths without which a config is not complete."""
    plain = identity(config)
    plain["corpus"] = plain["corpus"] | {"raw": config.corpus.raw}
    plain["tokenizer"] = {"path": config.tokenizer.path} | plain["tokenizer"]
    return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=110))


def _cleaning(config: PreprocessConfig) -> str:
    own = config.cleaning.model_dump(exclude_none=True, exclude={"preset", "blocked_words", "blocked_words_sha256"})
    changed = ", ".join(f"{name}: {value}" for name, value in own.items())
    return f"preset {config.cleaning.preset}" + (f" with {changed}" if changed else "")
