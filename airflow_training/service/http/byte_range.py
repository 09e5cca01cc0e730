"""Parts of a file that grows while it is sent.

Source: RFC 9110 section 14. A ready-made file response sends up to the end of the file as it is then, which is more
than it promised in Content-Length.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fastapi import Response
from fastapi.responses import StreamingResponse

from airflow_training.service.errors import ApiError

_PIECE = 256 * 1024


def file_response(path: Path, range_header: str | None, media_type: str, headers: Mapping[str, str]) -> Response:
    """Answer with a file, or with the part of it that was asked for; a missing file is an empty one.

    Raises:
        ApiError: 416, the part begins at the end of the file or behind it.
    """
    size = path.stat().st_size if path.exists() else 0
    headers = {**headers, "Accept-Ranges": "bytes"}
    wanted = _range(range_header, size)
    if wanted is None:
        headers["Content-Length"] = str(size)
        return StreamingResponse(_pieces(path, 0, size), 200, headers, media_type)
    start, end = wanted
    if start >= size:
        raise ApiError(
            416,
            f"There is nothing at byte {start} yet: the log has {size} bytes.",
            {"Content-Range": f"bytes */{size}"},
            code="AT-614",
        )
    headers["Content-Length"] = str(end - start)
    headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(_pieces(path, start, end), 206, headers, media_type)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and byte after the last; None for the whole file, as for anything but one range of bytes."""
    match = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", (header or "").replace(" ", ""))
    if not match or not any(match.groups()):
        return None
    first, last = match.groups()
    if not first:
        return (max(size - int(last), 0) if int(last) else size, size)
    if last and int(last) < int(first):
        return None
    return int(first), min(int(last) + 1, size) if last else size


def _pieces(path: Path, start: int, end: int) -> Iterator[bytes]:
    if start == end:
        return
    with path.open("rb") as file:
        file.seek(start)
        while start < end and (piece := file.read(min(_PIECE, end - start))):
            start += len(piece)
            yield piece
