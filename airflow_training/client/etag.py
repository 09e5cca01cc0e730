"""The entity tag that S3 gives a file: its checksum, of one of two kinds.

Source: "Checking object integrity" in the Amazon S3 user guide. A file that arrived in one request has the MD5 of its
bytes as its tag; one that arrived in parts has the MD5 of the parts' MD5s, a dash and their number. Stores that
imitate S3 use either for both.
"""

from __future__ import annotations

from hashlib import md5
from typing import BinaryIO


def etags(file: BinaryIO, part_size: int) -> frozenset[str]:
    """The tags that a file may have in a store.

    Args:
        file: What was uploaded; read from here to its end.
        part_size: Bytes of a part, where it was uploaded in parts.

    >>> import io
    >>> sorted(etags(io.BytesIO(b"hello"), part_size=1024))
    ['5d41402abc4b2a76b9719d911017c592', '62109206880d38a4010a98e11243924a-1']
    """
    whole = md5(usedforsecurity=False)
    parts = md5(usedforsecurity=False)
    number = 0
    while part := file.read(part_size):
        whole.update(part)
        parts.update(md5(part, usedforsecurity=False).digest())
        number += 1
    return frozenset({whole.hexdigest(), f"{parts.hexdigest()}-{number}"})
