import logging

import numpy as np
import pytest
from loader_helpers import bytes_in_cache, data_config, make_corpus

from lmbatch.config import CacheConfig
from lmbatch.errors import ConfigError, ResumeError, ShardError, StoreError
from lmbatch.loader import BatchLoader, LoaderState, open_train_data, read_sample
from lmbatch.loader import data as data_module
from lmbatch.loader import reader as reader_module
from lmbatch.loader.data import cache_folder
from lmbatch.store import MANIFEST_KEY, LocalStore
from support.remote_store import RemoteStore

TRAIN = [[30, 12], [], [5], [60, 1, 1, 20], [40]]


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path, TRAIN, [[25], [13, 2]])


def stream_of(store, manifest, split):
    return np.concatenate(
        [np.frombuffer(store.read(entry.bin.key), "<u2") for entry in manifest.of(split)]
    ).astype(np.int64)  # fmt: skip


def read_steps(config, count):
    """The tokens of the first ``count`` batches of 8 samples."""
    with open_train_data(config, seed=1) as data, BatchLoader(data.order, data.reader, batch_size=8, micro=8) as loader:
        return [next(loader).batches[0].tokens for _ in range(count)]


def test_a_sample_is_read_from_the_shards_of_the_store(corpus, tmp_path):
    store, manifest = corpus
    stream = stream_of(store, manifest, "train")
    with open_train_data(data_config(store, tmp_path), seed=1) as data:
        assert data.order.samples_per_epoch == (len(stream) - 1) // 8
        found = sorted(tuple(read_sample(data.order, data.reader, n)) for n in range(data.order.samples_per_epoch))
    assert found == sorted(tuple(stream[at * 8 : at * 8 + 9]) for at in range((len(stream) - 1) // 8))


def test_object_storage_gives_the_same_samples(corpus, tmp_path, monkeypatch):
    store, _ = corpus
    config = data_config(store, tmp_path, shuffle="windowed", window_shards=2)
    local = read_steps(config, 6)
    monkeypatch.setattr(data_module, "open_store", lambda uri: RemoteStore(store.root))
    assert np.array_equal(read_steps(config, 6), local)


def test_windowed_reading_stays_within_the_cache(tmp_path, monkeypatch):
    store, _ = make_corpus(tmp_path, [[100]] * 12)
    shard = 200
    config = data_config(
        store, tmp_path, shuffle="windowed", window_shards=2, cache={"max_bytes": 3 * shard}, sequence_length=8
    )
    sizes = []

    def look(key, path):
        sizes.append(bytes_in_cache(tmp_path / "cache"))

    monkeypatch.setattr(data_module, "open_store", lambda uri: RemoteStore(store.root, look))
    read_steps(config, 40)
    assert len(sizes) >= 24
    assert max(sizes) <= 3 * shard


def test_a_damaged_shard_stops_the_run_by_its_name(corpus, tmp_path):
    store, manifest = corpus
    key = manifest.of("train")[3].bin.key
    data = bytearray(store.read(key))
    data[10] ^= 4
    store.put(key, bytes(data))
    with pytest.raises(ShardError, match=key):
        read_steps(data_config(store, tmp_path), 9)


def test_a_pinned_digest(corpus, tmp_path):
    store, manifest = corpus
    with open_train_data(data_config(store, tmp_path, digest=manifest.digest), seed=1) as data:
        assert data.manifest == manifest
    with pytest.raises(ConfigError) as error:
        open_train_data(data_config(store, tmp_path, digest="sha256:other"), seed=1)
    assert manifest.digest in error.value.message
    assert "sha256:other" in error.value.message


def test_a_store_without_a_manifest(tmp_path):
    store = LocalStore(tmp_path / "empty")
    with pytest.raises(ConfigError, match="no manifest") as error:
        open_train_data(data_config(store, tmp_path), seed=1)
    assert "preprocess" in error.value.remedy


def test_a_damaged_manifest(corpus, tmp_path):
    store, _ = corpus
    store.put(MANIFEST_KEY, store.read(MANIFEST_KEY).replace(b'"size": 60010', b'"size": 60011'))
    with pytest.raises(StoreError, match="its content gives"):
        open_train_data(data_config(store, tmp_path), seed=1)


def test_a_split_smaller_than_a_sample(corpus, tmp_path):
    store, _ = corpus
    with pytest.raises(ConfigError, match="sequence_length 500"):
        open_train_data(data_config(store, tmp_path, sequence_length=500), seed=1)


def test_global_order_over_more_than_the_cache_holds(corpus, tmp_path, monkeypatch):
    store, manifest = corpus
    size = sum(entry.bin.size for entry in manifest.of("train"))
    monkeypatch.setattr(data_module, "open_store", lambda uri: RemoteStore(store.root))
    open_train_data(data_config(store, tmp_path, cache={"max_bytes": size}), seed=1).close()
    with pytest.raises(ConfigError, match=f"{size} bytes") as error:
        open_train_data(data_config(store, tmp_path, cache={"max_bytes": size - 1}), seed=1)
    assert "data.shuffle=windowed" in error.value.remedy


def test_a_window_that_may_be_larger_than_the_cache(corpus, tmp_path, monkeypatch, caplog):
    store, _ = corpus
    monkeypatch.setattr(data_module, "open_store", lambda uri: RemoteStore(store.root))
    windowed = {"shuffle": "windowed", "window_shards": 1}
    most = 2 * (82 + 42)  # the two largest shards
    open_train_data(data_config(store, tmp_path, cache={"max_bytes": 2 * most}, **windowed), seed=1).close()
    assert caplog.records == []
    open_train_data(data_config(store, tmp_path, cache={"max_bytes": most}, **windowed), seed=1).close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    with pytest.raises(ConfigError, match=f"{most} bytes") as error:
        open_train_data(data_config(store, tmp_path, cache={"max_bytes": most - 1}, **windowed), seed=1)
    assert "data.window_shards" in error.value.remedy


def test_a_local_store_needs_no_room(corpus, tmp_path):
    open_train_data(data_config(corpus[0], tmp_path, cache={"max_bytes": 1}), seed=1).close()


def test_the_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(CacheConfig()) == tmp_path / "lmbatch"
    assert cache_folder(CacheConfig(dir="/x/y")).as_posix() == "/x/y"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/zhang")
    assert cache_folder(CacheConfig()).as_posix() == "/home/zhang/.cache/lmbatch"


@pytest.mark.parametrize("most", [1, 2])
def test_few_files_may_be_open_at_once(corpus, tmp_path, monkeypatch, most):
    store, manifest = corpus
    monkeypatch.setattr(reader_module, "_MOST_OPEN", most)
    with open_train_data(data_config(store, tmp_path), seed=1) as data:
        found = np.concatenate([data.read(n) for n in range(data.order.samples_per_epoch)])
        assert len(data.reader._open) <= most
    stream = stream_of(store, manifest, "train")
    assert np.array_equal(found.reshape(-1, 9)[:, :-1].ravel(), stream[: 8 * ((len(stream) - 1) // 8)])


# ── evaluation ───────────────────────────────────────────────────────────────────────────────────────────────────────
def evaluation(store, tmp_path, **options):
    with open_train_data(data_config(store, tmp_path, sequence_length=5), seed=1, split="validation") as data:
        return list(data.evaluation(**options))


def test_evaluation_reads_the_split_in_order_with_a_last_partial_batch(corpus, tmp_path):
    store, manifest = corpus
    stream = stream_of(store, manifest, "validation")
    batches = evaluation(store, tmp_path, micro=3, batches=100)
    assert [len(batch.tokens) for batch in batches] == [3, 3, 1]
    rows = np.concatenate([batch.tokens for batch in batches])
    assert np.array_equal(rows, [stream[at * 5 : at * 5 + 6] for at in range(7)])
    assert [sample for batch in batches for sample in batch.samples] == list(range(7))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_evaluation_sees_the_same_batches_at_every_world_size(corpus, tmp_path, world):
    store, _ = corpus
    whole = evaluation(store, tmp_path, micro=2, batches=3)
    assert [batch.first_sample for batch in whole] == [0, 2, 4]
    parts = [evaluation(store, tmp_path, micro=2, batches=3, rank=rank, world_size=world) for rank in range(world)]
    together = sorted((batch for part in parts for batch in part), key=lambda batch: batch.first_sample)
    assert [batch.samples for batch in together] == [batch.samples for batch in whole]
    assert all(np.array_equal(a.tokens, b.tokens) for a, b in zip(together, whole, strict=True))


def test_evaluation_can_be_repeated_and_knows_its_length(corpus, tmp_path):
    store, _ = corpus
    with open_train_data(data_config(store, tmp_path, sequence_length=5), seed=1, split="validation") as data:
        batches = data.evaluation(micro=2, batches=2)
        assert len(batches) == 2
        assert [b.samples for b in batches] == [b.samples for b in batches] == [(0, 1), (2, 3)]
        for number in (-1, 7):
            with pytest.raises(IndexError, match="of 7"):
                data.read(number)


# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────
def test_the_state_survives_a_checkpoint():
    state = LoaderState("sha256:x", 7, 12_345)
    assert LoaderState.from_dict(state.to_dict()) == state
    assert state.to_dict() == {"manifest_digest": "sha256:x", "seed": 7, "samples_consumed": 12_345}


@pytest.mark.parametrize("change", [{"seed": "7"}, {"samples_consumed": -1}, {"more": 1}, {"manifest_digest": None}])
def test_something_else_is_no_state(change):
    with pytest.raises(ResumeError, match="not the state of a loader"):
        LoaderState.from_dict(LoaderState("d", 7, 1).to_dict() | change)
    with pytest.raises(ResumeError):
        LoaderState.from_dict({})
