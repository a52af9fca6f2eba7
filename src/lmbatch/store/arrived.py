"""Are the bytes that a server has the ones that were sent? Its entity tag tells, mostly.

The tag of a plain upload is the MD5 of what the server received, and that of an upload in parts the MD5 of the parts'
MD5s with ``-N`` behind it (Amazon S3 API reference, "Object", ETag; SeaweedFS, MinIO and Ceph do the same). A request's
signature covers its body too, but not every server checks that: SeaweedFS 4.48 keeps a flipped byte without a word.
Where objects are encrypted with keys of their own the tag is something else: then the bytes are read back.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

_PIECE_BYTES = 1 << 20


def etag_of(data: bytes) -> str:
    """The entity tag of a plain upload."""
    return _md5(data).hexdigest()


def etag_of_file(path: Path, part_bytes: int) -> str:
    """The entity tag of a file that goes up in parts of ``part_bytes``; in one piece if it is no larger than that."""
    digests = []
    with path.open("rb") as file:
        while (part := _part(file, part_bytes)) is not None:
            digests.append(part)
    if path.stat().st_size <= part_bytes:
        return digests[0].hex() if digests else etag_of(b"")
    return f"{_md5(b''.join(digests)).hexdigest()}-{len(digests)}"


def is_tag(found: str | None, expected: str) -> bool:
    """Is this the tag, as servers write it: in quotes, or without?"""
    return found is not None and found.removeprefix("W/").strip('"') == expected


def same_bytes(stream: BinaryIO, path: Path) -> bool:
    """Does a stream hold what a file holds? In bounded memory."""
    with path.open("rb") as file:
        while True:
            here, there = file.read(_PIECE_BYTES), stream.read(_PIECE_BYTES)
            if here != there:
                return False
            if not here:
                return True


def _part(file: BinaryIO, length: int) -> bytes | None:
    digest, left = _md5(b""), length
    while left and (piece := file.read(min(_PIECE_BYTES, left))):
        digest.update(piece)
        left -= len(piece)
    return None if left == length else digest.digest()


def _md5(data: bytes) -> hashlib._Hash:
    return hashlib.md5(data, usedforsecurity=False)
