"""The ETag of a file in S3: its checksum, of one of two kinds.

Source: "Checking object integrity" in the Amazon S3 user guide. The ETag of a file uploaded in one request is
the MD5 of its bytes; that of a multipart upload is the MD5 of the parts' MD5s, a dash and the number of parts. Some
S3-compatible stores use either for both.
"""

from __future__ import annotations

from functools import partial
from hashlib import md5
from typing import BinaryIO

# Larger pieces do not fit into the CPU's cache.
_PIECE = 256 * 1024
_NOTHING = md5(usedforsecurity=False).digest()


def matches(etag: str, file: BinaryIO, part_size: int) -> bool:
    """Whether an ETag is that of a file; only the checksum of its kind is computed.

    Args:
        etag: The ETag, without quotes.
        file: The file; read from the current position to its end.
        part_size: Bytes of a part of a multipart upload.

    >>> import io
    >>> matches("5d41402abc4b2a76b9719d911017c592", io.BytesIO(b"hello"), part_size=1024)
    True
    >>> matches("62109206880d38a4010a98e11243924a-1", io.BytesIO(b"hello"), part_size=1024)
    True
    """
    if "-" not in etag:
        return _md5(file).hex() == etag
    parts = list(iter(partial(_md5, file, part_size), _NOTHING))
    return f"{md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}" == etag


def _md5(file: BinaryIO, limit: int | None = None) -> bytes:
    """The MD5 of the next bytes of a file; of all if `limit` is None."""
    checksum = md5(usedforsecurity=False)
    left = limit
    while piece := file.read(_PIECE if left is None else min(_PIECE, left)):
        checksum.update(piece)
        if left is not None:
            left -= len(piece)
    return checksum.digest()
