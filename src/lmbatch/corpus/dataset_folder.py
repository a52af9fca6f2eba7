"""The layout of a folder written by ``datasets``' ``save_to_disk``.

A ``Dataset`` is a folder with ``state.json`` and Arrow streams ``data-00000-of-00002.arrow``; a ``DatasetDict`` is a
folder with ``dataset_dict.json`` and one such folder per split (datasets 5.2: arrow_dataset.py, dataset_dict.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from lmbatch.config import CorpusConfig
from lmbatch.corpus.globs import matches
from lmbatch.errors import CorpusError
from lmbatch.store import Store

STATE = "state.json"


def data_files(store: Store, config: CorpusConfig, paths: Iterable[str]) -> set[str]:
    """The Arrow files that ``state.json`` of every chosen folder names; caches beside them are no data.

    Raises CorpusError for several splits of which none was chosen, and for a folder with an indices mapping.
    """
    folders = [_parent(path) for path in paths if _name(path) == STATE and _selected(config, path)]
    chosen = [folder for folder in folders if config.dataset_split in (None, _name(folder))]
    if not chosen and len(folders) == 1 and folders[0] == "":
        chosen = folders if _split_of(store, "") == config.dataset_split else []
    _check_splits(store, config, folders, chosen)
    return {file for folder in chosen for file in _files_of(store, folder)}


def _selected(config: CorpusConfig, state: str) -> bool:
    """A folder is chosen by a pattern for itself or for the files in it."""
    candidates = (_parent(state), state, _join(_parent(state), "data-00000-of-00001.arrow"))
    return any(matches(path, config.include) for path in candidates) and not any(
        matches(path, config.exclude) for path in candidates
    )


def _check_splits(store: Store, config: CorpusConfig, folders: list[str], chosen: list[str]) -> None:
    splits = ", ".join(_name(folder) for folder in folders)
    if folders and not chosen:
        raise CorpusError(
            f"{store.uri}: no split {config.dataset_split!r} in this `datasets` folder; there is {splits}",
            remedy="set corpus.dataset_split to one of them",
        )
    parents = [_parent(folder) for folder in chosen if folder]
    for parent in sorted({parent for parent in parents if parents.count(parent) > 1}):
        if store.exists(_join(parent, "dataset_dict.json")):
            raise CorpusError(
                f"{_join(store.uri, parent)}: a `datasets` folder with several splits: {splits}",
                remedy="choose one with corpus.dataset_split",
            )


def _files_of(store: Store, folder: str) -> list[str]:
    state = _state(store, folder)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise CorpusError(
            f"{_join(store.uri, _join(folder, STATE))}: this dataset has an indices mapping (`_indices_files`), "
            "so the rows in its files are not the rows of the dataset",
            remedy="save it again after dataset.flatten_indices()",
        )
    return [_join(folder, entry["filename"]) for entry in state["_data_files"]]


def _split_of(store: Store, folder: str) -> str | None:
    split = _state(store, folder).get("_split")
    return split if isinstance(split, str) else None


def _state(store: Store, folder: str) -> dict[str, Any]:
    key = _join(folder, STATE)
    try:
        state = json.loads(store.read(key))
        if all(isinstance(entry["filename"], str) for entry in state["_data_files"]):
            return dict(state)
    except (ValueError, KeyError, TypeError):
        pass
    raise CorpusError(
        f"{_join(store.uri, key)}: does not name the data files of a `datasets` folder",
        remedy="write the folder again with save_to_disk",
    )


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
