"""Which store a URI names."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from lmbatch.errors import StoreError
from lmbatch.store.base import Store
from lmbatch.store.keys import check_key
from lmbatch.store.local import LocalStore
from lmbatch.store.retry import DEFAULT_BACKOFF, Backoff

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://(.*)$", re.DOTALL)
_CREDENTIALS = re.compile(r"//[^/]*@")


@dataclass(frozen=True, slots=True)
class Location:
    """A URI taken apart: ``scheme`` is ``file`` for plain paths; ``rest`` is what follows ``://``."""

    scheme: str
    rest: str


def parse_location(uri: str) -> Location:
    """Raises StoreError for an empty URI and for one that carries credentials or parameters.

    Nothing is percent-decoded: a file URI holds the path as it is, Chinese characters included.
    """
    if not uri.strip():
        raise StoreError("no store is named", remedy="give a folder or a URI such as s3://bucket/prefix")
    match = _SCHEME.match(uri)
    if match is None or match[1].lower() == "file":
        return Location("file", match[2] if match else uri)
    # The text after the scheme may hold a secret, so neither message repeats it.
    if _CREDENTIALS.search(uri):
        raise StoreError(
            f"a {match[1]}:// store is named with credentials or an endpoint inside its URI (…@…)",
            remedy="give them by the usual environment variables or profile; a URI ends up in configs and logs",
        )
    if "?" in match[2] or "#" in match[2]:
        raise StoreError(
            f"a {match[1]}:// store is named with parameters (? or #) inside its URI",
            remedy="name only the place, for example s3://bucket/prefix",
        )
    return Location(match[1].lower(), match[2])


def open_store(uri: str, *, patience: float = 0.0) -> Store:
    """The store at ``uri``: a path or ``file://…`` (relative ones start at the current folder), ``s3://bucket/prefix``,
    or any other fsspec scheme, which can only be read. Raises StoreError.

    ``patience`` is for how many seconds at least a server that does not answer is asked again (see `Backoff`).
    """
    location = parse_location(uri)
    if location.scheme == "file":
        return LocalStore(Path(location.rest).expanduser())
    if location.scheme == "s3":
        from lmbatch.store.client import Limits
        from lmbatch.store.s3 import S3Store

        bucket, _, prefix = location.rest.partition("/")
        prefix = check_key(prefix.strip("/")) if prefix.strip("/") else ""
        return S3Store(check_bucket(bucket), prefix, limits=Limits(_backoff(patience)))
    from lmbatch.store.generic import GenericStore

    return GenericStore(f"{location.scheme}://{location.rest}", backoff=_backoff(patience))


def local_folder(uri: str) -> Path | None:
    """The folder that a store at ``uri`` is, by its absolute path; None for one that is reached over the network."""
    store = open_store(uri) if parse_location(uri).scheme == "file" else None
    return store.root if isinstance(store, LocalStore) else None


def _backoff(patience: float) -> Backoff:
    return replace(DEFAULT_BACKOFF, patience=patience)


def check_bucket(bucket: str) -> str:
    """Raises StoreError for what cannot be the name of a bucket."""
    if not re.fullmatch(r"[A-Za-z0-9._-]+", bucket):
        raise StoreError(f"s3://{bucket}: not the name of a bucket", remedy="write s3://bucket/prefix")
    return bucket
