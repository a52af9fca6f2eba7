"""Does the store keep the promise that commits rest on?"""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

from lmbatch.errors import UnsafeStoreError
from lmbatch.store.base import Store
from lmbatch.store.traffic import Traffic

PROBE_PREFIX = ".lmbatch-probe/"
_RACERS = 4
# Of one check: both of the first two writes and those of the race, a look at what stands there for each that lost and
# at the end of either test, and the two that are taken away.
PROBE_TRAFFIC = Traffic(put=2 + _RACERS, get=2 + _RACERS, delete=2)


def check_publish_once(store: Store) -> None:
    """Publish to a fresh name twice, then to another from several threads at once; leave nothing behind.

    Raises UnsafeStoreError for a store that overwrites where it was told not to (several S3 look-alikes do, without
    a word), and StoreError for one that cannot be written at all.
    """
    stem = PROBE_PREFIX + secrets.token_hex(8)
    keys = (f"{stem}-twice", f"{stem}-race")
    try:
        _twice(store, keys[0])
        _race(store, keys[1])
    finally:
        for key in keys:
            store.delete(key)


def _twice(store: Store, key: str) -> None:
    first = store.publish(key, b"first")
    second = store.publish(key, b"second")
    if not first or second or store.read(key) != b"first":
        raise _unsafe(store, "a second conditional write replaced the first")


def _race(store: Store, key: str) -> None:
    values = [b"racer %d" % number for number in range(_RACERS)]
    with ThreadPoolExecutor(_RACERS) as pool:
        answers = list(pool.map(lambda value: store.publish(key, value), values))
    winners = [value for value, won in zip(values, answers, strict=True) if won]
    if len(winners) != 1 or store.read(key) != winners[0]:
        raise _unsafe(store, f"{len(winners)} of {_RACERS} simultaneous conditional writes were told that they won")


def _unsafe(store: Store, finding: str) -> UnsafeStoreError:
    return UnsafeStoreError(
        f"{store.uri}: this store does not honour conditional writes (If-None-Match: *): {finding}",
        remedy="two attempts at one task could both commit here; use a store that honours them "
        "(AWS S3, MinIO, Ceph RGW, SeaweedFS) or a file:// store",
    )
