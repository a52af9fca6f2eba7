"""Which files a corpus consists of."""

from __future__ import annotations

from dataclasses import dataclass

from lmbatch.config import CorpusConfig
from lmbatch.corpus import dataset_folder
from lmbatch.corpus.globs import matches
from lmbatch.errors import InputMissingError, ObjectNotFoundError
from lmbatch.store import Store

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input file and what tells whether it is still the same. ``path`` is relative to the corpus's root."""

    path: str
    size: int
    etag: str | None
    modified: float | None


def list_inputs(store: Store, config: CorpusConfig) -> list[InputFile]:
    """The files under the root of ``store`` that the corpus names, sorted by path.

    Raises InputMissingError if there are none or all of them are empty; CorpusError for a ``datasets`` folder that
    cannot be read as it is.
    """
    files = _all_files(store)
    if config.format == "dataset":
        chosen = dataset_folder.data_files(store, config, [file.path for file in files])
    else:
        chosen = {file.path for file in files if matches(file.path, config.include, config.exclude)}
    inputs = [file for file in files if file.path in chosen]
    _refuse_nothing(store, config, files, inputs)
    return inputs


def _all_files(store: Store) -> list[InputFile]:
    try:
        found = [InputFile(info.key, info.size, info.etag, info.modified) for info in store.list()]
    except ObjectNotFoundError:
        return []
    # Some object stores keep an empty object "folder/" for every folder.
    return sorted((file for file in found if not file.path.endswith("/")), key=lambda file: file.path)


def _refuse_nothing(store: Store, config: CorpusConfig, files: list[InputFile], inputs: list[InputFile]) -> None:
    if inputs and any(file.size for file in inputs):
        return
    wanted = ", ".join(config.include)
    if inputs:
        message = f"corpus {config.name}: all {len(inputs)} input files under {store.uri} are empty ({wanted})"
    else:
        message = f"corpus {config.name}: no input files: nothing under {store.uri} matches {wanted}"
        message += f"; there is {_some(files)}" if files else "; there is no file at all"
    remedy = config.obtain.strip() or f"put the files under {store.uri}, or say where they are with RAW= or --raw"
    raise InputMissingError(message, remedy=remedy)


def _some(files: list[InputFile]) -> str:
    names = ", ".join(file.path for file in files[:_SHOWN])
    return f"{names} and {len(files) - _SHOWN} more" if len(files) > _SHOWN else names
