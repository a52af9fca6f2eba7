"""The obstore client of a bucket: time-outs, inner retries, and how the credentials get in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lmbatch.errors import StoreError
from lmbatch.store.connection import Connection, Keys
from lmbatch.store.retry import DEFAULT_BACKOFF, Backoff

if TYPE_CHECKING:
    from obstore.store import S3Credential, S3CredentialProvider
    from obstore.store import S3Store as Client

_first_user: list[int] = []  # the process whose threads serve every client


@dataclass(frozen=True, slots=True)
class Limits:
    """Times in seconds. ``whole`` bounds one request with its body, ``silence`` the wait for the next byte of it."""

    backoff: Backoff = DEFAULT_BACKOFF
    connect: float = 5.0
    silence: float = 60.0
    whole: float = 300.0
    inner_retries: int = 3  # obstore's own, so that one failed part does not repeat a whole upload


DEFAULT_LIMITS = Limits()


def import_obstore() -> Any:
    """The module. Raises StoreError where it is not installed."""
    try:
        import obstore
    except ImportError:
        raise StoreError("s3:// needs the package obstore", remedy="pip install lmbatch[s3]") from None
    module: ModuleType = obstore
    return module


def new_client(bucket: str, connection: Connection, limits: Limits) -> Client:
    """A client that has not connected yet."""
    from obstore.store import S3Store as Client

    endpoint = connection.endpoint
    if endpoint and connection.virtual_hosted:
        endpoint = endpoint.replace("://", f"://{bucket}.", 1)
    config: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    return Client(
        bucket,
        region=connection.region,
        virtual_hosted_style_request=connection.virtual_hosted,
        disable_bulk_delete=True,  # not every server has it
        client_options={
            "allow_http": connection.allow_http,
            "connect_timeout": timedelta(seconds=limits.connect),
            "read_timeout": timedelta(seconds=limits.silence),
            "timeout": timedelta(seconds=limits.whole),
        },
        retry_config={
            "max_retries": limits.inner_retries,
            "retry_timeout": timedelta(seconds=limits.whole),
            "backoff": {
                "init_backoff": timedelta(seconds=limits.backoff.base / 5),
                "max_backoff": timedelta(seconds=limits.backoff.cap),
                "base": 2,
            },
        },
        credential_provider=_provider(connection.keys) if connection.keys else None,
        **config,
    )


def refuse_after_fork(where: str) -> None:
    """Raises StoreError in a child forked from a process that had used a client.

    It would have none of the client's threads, and wait for them for ever.
    """
    if not _first_user:
        _first_user.append(os.getpid())
    if _first_user[0] != os.getpid():
        raise StoreError(
            f"{where}: a process that was forked from one which had used S3 cannot use it",
            remedy='start processes with multiprocessing.get_context("spawn")',
        )


def _provider(keys: Keys) -> S3CredentialProvider:
    # Given by a function and not as settings, the credentials are in no text form of the client.
    def credentials() -> S3Credential:
        return {
            "access_key_id": keys.access_key_id,
            "secret_access_key": keys.secret_access_key,
            "token": keys.session_token,
            "expires_at": None,
        }

    return credentials
