"""The entity tag that S3 gives a file: its checksum, of one of two kinds.

Source: "Checking object integrity" in the Amazon S3 user guide. A file that arrived in one request has the MD5 of its
bytes as its tag; one that arrived in parts has the MD5 of the parts' MD5s, a dash and their number. Stores that
imitate S3 use either for both.
"""

from __future__ import annotations

from functools import partial
from hashlib import md5
from typing import BinaryIO

# Larger pieces leave the processor's cache before their checksum is taken.
_PIECE = 256 * 1024
_NOTHING = md5(usedforsecurity=False).digest()


def matches(etag: str, file: BinaryIO, part_size: int) -> bool:
    """Tell whether a tag is that of a file: only the checksum of its kind is computed.

    Args:
        etag: The tag, without quotes.
        file: What was uploaded; read from here to its end.
        part_size: Bytes of a part, where it was uploaded in parts.

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


def _md5(file: BinaryIO, most: int | None = None) -> bytes:
    """The checksum of the next bytes of a file, of all that follow if None."""
    checksum = md5(usedforsecurity=False)
    left = most
    while piece := file.read(_PIECE if left is None else min(_PIECE, left)):
        checksum.update(piece)
        if left is not None:
            left -= len(piece)
    return checksum.digest()
