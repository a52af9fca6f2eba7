"""What a failed S3 request means: obstore tells it in its exception's type and, for the rest, only in its text."""

from __future__ import annotations

import html
import re
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from lmbatch.errors import ClockError, ObjectNotFoundError, StoreAccessError, StoreError, StoreFullError

Kind = Literal["missing", "bucket", "exists", "changed", "access", "clock", "range", "full", "lasting", "passing"]

_STATUS = re.compile(r"status code: (\d{3})|status: (\d{3})\b")
_CODE = re.compile(r"<Code>([^<]{1,100})</Code>")
_TEXT = re.compile(r"<Message>([^<]{1,400})</Message>")
_DEEPEST = re.compile(r'(?:message|error): "([^"]{1,200})"')
_FULL = re.compile(r"no space|disk (is )?full|out of space|quota|storage ?full|insufficient ?storage|no writable volume"
                   r"|no free volume|no more writable", re.IGNORECASE)  # fmt: skip
_CLOCK_CODES = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_BY_TYPE: dict[str, Kind] = {
    "AlreadyExistsError": "exists",
    "PreconditionError": "changed",
    "PermissionDeniedError": "access",
    "UnauthenticatedError": "access",
    "InvalidPathError": "lasting",
    "NotSupportedError": "lasting",
    "UnknownConfigurationKeyError": "lasting",
}
_BY_STATUS: dict[int, Kind] = {401: "access", 403: "access", 404: "missing", 412: "changed", 416: "range", 507: "full"}
_WORTH_ANOTHER = {408, 409, 425, 429}


class TruncatedBodyError(Exception):
    """Fewer bytes came than the server announced."""


class ChangedBodyError(Exception):
    """The server has other bytes than were sent to it."""


def from_request(error: Exception) -> bool:
    """Whether the error tells about a request; anything else is a mistake of ours, and no reason to ask again."""
    known = isinstance(error, OSError | TruncatedBodyError | ChangedBodyError)
    return known or type(error).__module__.startswith("obstore")


@dataclass(frozen=True, slots=True)
class Failure:
    """``reason`` is one line: the server's own words where it gave any. ``status`` is None without an answer."""

    kind: Kind
    status: int | None
    reason: str

    @property
    def passing(self) -> bool:
        """Whether another attempt may succeed. A full disk may be emptied, and some servers say it of one node."""
        return self.kind in ("passing", "full")


def classify(error: Exception) -> Failure:
    """The meaning of an error that tells about a request; an unknown one may pass."""
    text = str(error)
    status = _status(text)
    return Failure(_kind(error, text, status), status, _reason(error, text, status))


def store_error(failure: Failure, action: str, where: str, reason: str) -> StoreError:
    """The error for the user; ``reason`` is the failure's with every credential masked."""
    message = f"could not {action} {where}: {reason}"
    if failure.kind == "missing":
        return ObjectNotFoundError(f"{where}: no such object", remedy="check the name and the store's URI")
    if failure.kind == "access":
        return StoreAccessError(
            message,
            remedy="check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY (or AWS_PROFILE), this machine's clock, and whether "
            "the key may list, read, write and delete in the bucket",
        )
    if failure.kind == "clock":
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        return ClockError(
            f"{message} (the clock of {socket.gethostname()} says {now})",
            remedy="set that machine's clock right (NTP): S3 refuses requests that are more than 15 minutes off",
        )
    if failure.kind == "full":
        return StoreFullError(message, remedy="make room in the object storage (or raise its quota), and run again")
    if failure.kind == "changed":
        return StoreError(message, remedy="the object was replaced while it was being read: run again")
    if failure.status is not None and failure.status >= 500:  # a full disk, too, is often called an internal error
        return StoreError(message, remedy="look at the server's log and its free space, and run again")
    return StoreError(message, remedy="check the endpoint and the server, and run again: what was done stays done")


def _kind(error: Exception, text: str, status: int | None) -> Kind:
    code = _found(_CODE, text)
    if code == "NoSuchBucket":
        return "bucket"
    if code in _CLOCK_CODES:
        return "clock"
    if code == "NoSuchUpload":  # the server gave up on it, so another upload has to begin
        return "passing"
    if isinstance(error, FileNotFoundError):
        return "missing"
    if (known := _BY_TYPE.get(type(error).__name__)) is not None:
        return known
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if _FULL.search(f"{code} {_found(_TEXT, text)}"):
        return "full"
    lasting = status is not None and (300 <= status < 500 or status == 501) and status not in _WORTH_ANOTHER
    return "lasting" if lasting else "passing"


def _reason(error: Exception, text: str, status: int | None) -> str:
    code, said = _found(_CODE, text), _found(_TEXT, text)
    if code or said:
        return f"{status or ''} {code}: {said}".strip()
    first = text.splitlines()[0] if text else type(error).__name__
    first = first.rpartition(" - ")[2].strip().removesuffix(":")  # before it stand the URL and the times
    deepest = _DEEPEST.findall(text)
    return f"{first} ({deepest[-1]})" if deepest else first


def _status(text: str) -> int | None:
    match = _STATUS.search(text)
    return int(match[1] or match[2]) if match else None


def _found(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return html.unescape(match[1].strip()) if match else ""
