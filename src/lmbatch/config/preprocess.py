"""The config of one corpus: where it lies, how it is read, cleaned, split, tokenized and cut into tasks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from lmbatch.config.base import Bytes, Section, added, operational
from lmbatch.config.chunking import ChunkingConfig
from lmbatch.config.cleaning import CleaningConfig
from lmbatch.config.dedup import DedupConfig

Format = Literal["json_array", "json_lines", "csv", "txt_lines", "txt_files", "parquet", "dataset"]


class CorpusConfig(Section):
    """The raw corpus and the way from its records to documents."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="Name of the corpus, used in paths.")
    format: Format = Field(description="How the input files are laid out.")
    raw: str = operational(description="Folder or URI under which the input files lie (RAW= and --raw override it).")
    include: tuple[str, ...] = Field(description="Glob patterns under `raw`; `**` crosses folders.")
    exclude: tuple[str, ...] = Field((), description="Glob patterns under `raw` that are left out.")
    text_fields: tuple[str, ...] = Field(("text",), description="Fields whose texts, joined, make the document.")
    text_separator: str = Field("\n", description="What stands between two text fields.")
    id_field: str | None = Field(None, description="Field that identifies a document; without it, its text does.")
    metadata_fields: tuple[str, ...] = Field((), description="Fields kept as metadata for filters and reports.")
    missing_text: Literal["quarantine", "drop"] = Field(
        "quarantine", description="A record without text: quarantined (counts against the budget) or dropped by name."
    )
    splittable: bool = Field(True, description="May a file be cut into byte ranges, where its format allows it?")
    max_record_bytes: Bytes = Field(
        16 * 2**20, description="A longer record is quarantined unread; it bounds a worker's memory."
    )
    dataset_split: str | None = Field(None, description="Split of a `datasets` folder that has several.")
    csv_delimiter: str = Field(",", min_length=1, max_length=1, description="Field delimiter of CSV files.")
    first_records: int | None = Field(None, gt=0, description="Take only the first N records of each file.")
    max_records: int | None = added(
        None, gt=0, description="Take only the first N records of the corpus, its files in the order of their paths; "
        "what lies behind them is not read, and the ledger says so. All is then one task, whatever tasks.bytes says."
    )  # fmt: skip
    language: tuple[str, ...] = operational(
        (), description="Languages of the texts, ISO 639-1 such as [zh]; for the report and the data card."
    )
    license: str = operational("", description="The corpus's license, as an SPDX name or in words; for the data card.")
    description: str = operational("", description="What the corpus is, in a few sentences; for the data card.")
    obtain: str = operational("", description="How to get this corpus; printed when no input is found.")

    @field_validator("include", "text_fields")
    @classmethod
    def _not_empty(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("must name at least one")
        return value

    @model_validator(mode="after")
    def _one_limit(self) -> CorpusConfig:
        if self.first_records is not None and self.max_records is not None:
            raise ValueError("first_records counts in each file, max_records over all of them: give one of the two")
        return self


class TokenizerRef(Section):
    """A tokenizer and the token that ends a document."""

    path: str = operational(
        description="A Hugging Face tokenizer folder (tokenizer.json, or vocab.txt for BERT), or a name on its hub: "
        "`Qwen/Qwen2-0.5B`, `Qwen/Qwen2-0.5B@REVISION`."
    )
    eod: str | None = Field(
        None, description="Token that ends a document; by default the folder's own eos_token. It must exist."
    )
    engine: Literal["auto", "huggingface", "table", "nanotoken", "fastokens"] = operational(
        "auto", description="What encodes; a fast engine is used only while it gives the ids of Hugging Face."
    )


class SplitConfig(Section):
    """Train and validation, told apart by a hash of the document's identity."""

    validation_fraction: float = Field(0.005, ge=0.0, lt=1.0, description="Share of documents for validation.")
    salt: str = Field("lmbatch", description="Change it to draw another validation set.")


class ShardsConfig(Section):
    """The token shards."""

    dtype: Literal["auto", "uint16", "int32"] = Field(
        "auto", description="auto: uint16 if the largest token id fits, else int32."
    )
    max_bytes: Bytes = Field(256 * 2**20, description="A task starts a new shard before this many bytes of tokens.")


class TasksConfig(Section):
    """How the input is cut into tasks."""

    bytes: Bytes = Field(512 * 2**20, description="Target size of a task in bytes of input; small files are grouped.")


class BudgetConfig(Section):
    """How much may be quarantined before a run fails instead of finishing with holes."""

    max_quarantined_fraction: float = Field(0.001, ge=0.0, le=1.0, description="Share of records.")
    max_quarantined_records: int = Field(100, ge=0, description="This many are always allowed.")


class ReportConfig(Section):
    """What tasks note for `lmbatch report`."""

    samples_per_reason: int = Field(
        3, ge=0, le=100, description="Records that each task keeps an excerpt of, for each reason to drop, quarantine "
        "or change one, and of those that are kept; personal data that cleaning takes out is in none. 0: no excerpts."
    )  # fmt: skip
    sample_characters: int = Field(300, gt=0, le=10_000, description="Length of such an excerpt.")
    source_field: str | None = Field(
        None, description="Field by whose values the report counts documents and tokens (WuDao: dataType); one of "
        "corpus.metadata_fields."
    )  # fmt: skip


class PreprocessConfig(Section):
    """A corpus config: `lmbatch preprocess --config configs/corpora/NAME.yaml`."""

    corpus: CorpusConfig
    cleaning: CleaningConfig = CleaningConfig()
    dedup: DedupConfig | None = added(None, description="De-duplication over the whole corpus; off without it.")
    tokenizer: TokenizerRef
    chunking: ChunkingConfig | None = added(
        None, description="How documents become examples (mode, length); without it they are packed."
    )
    split: SplitConfig = SplitConfig()
    shards: ShardsConfig = ShardsConfig()
    tasks: TasksConfig = TasksConfig()
    budget: BudgetConfig = operational(BudgetConfig(), description="Error budget.")
    report: ReportConfig = operational(ReportConfig(), description="What is noted for the report.")
    store: str = operational(
        "", description="Where shards and receipts go (file:// or s3://); empty: data/shards/NAME under the "
        "current folder (STORE= and --store override it)."
    )  # fmt: skip
    retries: int = operational(2, ge=0, description="How often a failed task is tried again before the run fails.")
    patience: float = operational(
        300.0, ge=0.0, description="Seconds for which a store that does not answer is asked again before a task fails; "
        "0: eight attempts, which take half a minute."
    )  # fmt: skip
    heartbeat_seconds: float = operational(
        10.0, ge=0.0, description="How often a worker writes how far its task is, for `lmbatch status`; 0: never."
    )
    spool: str | None = operational(
        None, description="Local folder for shards on their way to the store; default: the system's temporary folder."
    )
    jobs: str = operational("data/jobs", description="Folder for the logs and job files of preprocessing.")

    @field_validator("chunking")
    @classmethod
    def _packed_is_the_default(cls, value: ChunkingConfig | None) -> ChunkingConfig | None:
        # One spelling for one result, so that both have the same fingerprint.
        return None if value is not None and value.mode == "packed" else value

    @model_validator(mode="after")
    def _source_field_is_read(self) -> PreprocessConfig:
        field = self.report.source_field
        if field is not None and field not in self.corpus.metadata_fields:
            raise ValueError(f"report.source_field: {field!r} must be one of corpus.metadata_fields")
        return self
