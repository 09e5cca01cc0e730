"""The bucket of a training service: S3, path style, one bucket called `data`."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from airflow_training.api.storage import BUCKET, StorageAccess
from airflow_training.client.etag import matches
from airflow_training.client.settings import ClientSettings, unreadable_certificates
from airflow_training.exceptions import StorageError

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config

_CERTIFICATE = b"-----BEGIN CERTIFICATE-----"

# The errors of obstore; for 404 it raises FileNotFoundError.
_ERRORS = (BaseError, OSError)


@dataclass(frozen=True)
class Upload:
    """A file to upload into a job folder.

    Attributes:
        name: Its name in the job folder.
        source: Its content: bytes, or a function that opens it.
    """

    name: str
    source: bytes | Callable[[], BinaryIO]

    def open(self) -> BinaryIO:
        """Open its content for reading."""
        return BytesIO(self.source) if isinstance(self.source, bytes) else self.source()


@dataclass(frozen=True)
class StoredFile:
    """A file of the bucket.

    Attributes:
        key: Its key.
        size: Bytes.
        etag: Its ETag, without quotes; empty if the storage has none.
    """

    key: str
    size: int
    etag: str


class TransferLog:
    """Logs the progress of a transfer: a line for each large file, and a line for all of them from time to time.

    With a line for each of 20,000 files, nothing else would be found in the log, and logging would take longer than the
    transfer.

    Args:
        log: Writes a line.
        count: How many files there are.
        words: The first words of a line about progress, a transferred file and an unchanged file.
        clock: A clock in seconds.
    """

    # Seconds between two lines if another hundredth of the files is done, and if less is. An upload of any number of
    # files has at most a hundred lines and one a minute, and a slow one does not seem to hang.
    _OFTEN = 10.0
    _SELDOM = 60.0

    UPLOAD = ("Uploading", "Uploaded", "Unchanged in the storage:")
    DOWNLOAD = ("Downloading", "Copied", "Unchanged:")

    def __init__(
        self,
        log: Callable[[str], object],
        count: int,
        words: tuple[str, str, str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._count = count
        self._doing, self._done, self._unchanged = words
        self._clock = clock
        self._files = self._bytes = 0
        self._sent_files = self._sent_bytes = 0
        self._logged_at, self._logged_files = clock(), 0

    def bytes_done(self, count: int) -> None:
        """Count transferred bytes."""
        self._bytes += count
        waited = self._clock() - self._logged_at
        enough = (self._files - self._logged_files) * 100 >= self._count
        if waited >= (self._OFTEN if enough else self._SELDOM):
            self._logged_at, self._logged_files = self._clock(), self._files
            share = self._files * 100 // self._count
            self._log(f"{self._doing}: {self._files:,} of {_files(self._count)}, {share} %, {self._bytes:,} bytes")

    def file_done(self, name: str, size: int, was_sent: bool) -> None:
        """Count a transferred or unchanged file, and log the name of a large one."""
        self._files += 1
        if was_sent:
            self._sent_files += 1
            self._sent_bytes += size
        if size >= JobStorage.PART_SIZE:
            self._log(f"{self._done if was_sent else self._unchanged} {name} ({size:,} bytes)")

    def end(self) -> None:
        """Log the totals."""
        line = f"{self._done} {_files(self._sent_files)} ({self._sent_bytes:,} bytes)"
        unchanged = self._files - self._sent_files
        self._log(f"{line}, {_files(unchanged)} unchanged" if unchanged else line)


def _files(count: int) -> str:
    return f"{count:,} file{'' if count == 1 else 's'}"


class JobStorage:
    """The files of jobs in the service's bucket.

    Args:
        access: Endpoint and credentials.
        settings: The service, for its headers, certificates and proxies.

    Every method raises StorageError.
    """

    # Concurrent files, concurrent files larger than a part, concurrent parts of a file, and the size of a part. One
    # more part of each file is read ahead. Together they bound the memory of an upload, whatever the size of the files.
    FILES = 4
    LARGE_FILES = 2
    PARTS = 4
    PART_SIZE = 8 * 1024 * 1024

    def __init__(self, access: StorageAccess, settings: ClientSettings) -> None:
        self.endpoint = access.url
        self._config: S3Config = {
            "endpoint": access.url,
            "access_key_id": access.access_key,
            "secret_access_key": access.secret_key,
            "region": "us-east-1",  # S3-compatible endpoints have no regions, the signature needs one
            "virtual_hosted_style_request": False,
        }
        self._options = _client_options(access, settings)
        self._store = self.bucket()

    def bucket(self, name: str = BUCKET) -> S3Store:
        """Open a bucket; job folders are in the bucket `data`."""
        return S3Store(name, config=self._config, client_options=self._options)

    async def upload(
        self,
        folder: str,
        files: Sequence[Upload],
        done: Callable[[str, int, bool], None] = lambda *_: None,
        progress: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Upload files into a job folder: several at a time, in constant memory; unchanged files are not sent again.

        Args:
            folder: The job folder.
            files: The files.
            done: Called with the name of each file in the storage, its size in bytes, and whether it had to be sent.
            progress: Called with the number of further bytes.
        """
        there = {file.key: file for file in await self.files(folder)}
        large = asyncio.Semaphore(self.LARGE_FILES)
        waiting = iter(files)

        async def work() -> None:
            for file in waiting:
                key = f"{folder}/{file.name}"
                size, sent = await self._put(key, file, there.get(key), large, progress)
                done(file.name, size, sent)

        await asyncio.gather(*(work() for _ in range(self.FILES)))

    async def _put(
        self,
        key: str,
        file: Upload,
        there: StoredFile | None,
        large: asyncio.Semaphore,
        progress: Callable[[int], None],
    ) -> tuple[int, bool]:
        with ExitStack() as opened:
            try:
                content, begin, unchanged = await asyncio.to_thread(self._open, opened, file, there)
            except OSError as error:
                raise _unreadable(file, error) from error
            size = len(begin)
            if there and unchanged:
                progress(there.size)
                return there.size, False

            async def parts() -> AsyncGenerator[bytes, None]:
                nonlocal begin, size
                part, begin = begin, b""
                while part:
                    yield part
                    progress(len(part))
                    try:
                        # The library's own threads would not send anything while one of them waits for the source.
                        part = await asyncio.to_thread(_read, content, self.PART_SIZE)
                    except OSError as error:
                        raise _unreadable(file, error) from error
                    size += len(part)

            try:
                if size < self.PART_SIZE:
                    await obstore.put_async(self._store, key, begin, use_multipart=False)
                    progress(size)
                else:
                    async with large:
                        await obstore.put_async(
                            self._store, key, parts(), chunk_size=self.PART_SIZE, max_concurrency=self.PARTS
                        )
            except _ERRORS as error:
                raise StorageError(
                    f"{file.name} could not be uploaded to the storage at {self.endpoint}: {_reason(error)}",
                    code="AT-311",
                ) from error
            return size, True

    def _open(self, opened: ExitStack, file: Upload, there: StoredFile | None) -> tuple[BinaryIO, bytes, bool]:
        """Open a file and read its first part; return whether the storage has the same file."""
        content = opened.enter_context(file.open())
        begin = _read(content, self.PART_SIZE)
        if there is None:
            return content, begin, False
        if len(begin) < self.PART_SIZE:
            return content, begin, matches(there.etag, BytesIO(begin), self.PART_SIZE)
        unchanged = content.seekable() and content.seek(0, os.SEEK_END) == there.size
        if unchanged:
            content.seek(0)
            unchanged = matches(there.etag, content, self.PART_SIZE)
        if content.seekable():
            content.seek(len(begin))
        return content, begin, unchanged

    async def keys(self, folder: str) -> list[str]:
        """List the keys of a folder's files, including subfolders."""
        return [file.key for file in await self.files(folder)]

    async def files(self, folder: str) -> list[StoredFile]:
        """List the files of a folder, including subfolders."""
        try:
            return [
                StoredFile(entry["path"], entry["size"], (entry["e_tag"] or "").strip('"'))
                async for batch in obstore.list(self._store, f"{folder}/")
                for entry in batch
            ]
        except _ERRORS as error:
            raise StorageError(
                f"The folder {folder} could not be listed in the storage at {self.endpoint}: {_reason(error)}",
                code="AT-313",
            ) from error

    async def read(self, key: str) -> AsyncGenerator[bytes, None]:
        """Read a file in pieces."""
        try:
            answer = await obstore.get_async(self._store, key)
            async for piece in answer.stream():
                yield bytes(piece)
        except _ERRORS as error:
            raise StorageError(
                f"The file {key} could not be read from the storage at {self.endpoint}: {_reason(error)}",
                code="AT-314",
            ) from error


def _read(file: BinaryIO, size: int) -> bytes:
    """Read `size` bytes or all that are left; a stream may return fewer per call."""
    pieces = []
    while size and (piece := file.read(size)):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _reason(error: Exception) -> str:
    # The library's text continues with a dump of its state.
    return next(iter(str(error).splitlines()), type(error).__name__)


def _unreadable(file: Upload, error: OSError) -> StorageError:
    return StorageError(f"{file.name} could not be uploaded, since it cannot be read: {error}.", code="AT-312")


def _client_options(access: StorageAccess, settings: ClientSettings) -> ClientConfig:
    options: ClientConfig = {
        "allow_http": access.url.startswith("http://"),
        "allow_invalid_certificates": settings.verify is False,
        "connect_timeout": timedelta(seconds=10),
        # A part must arrive within this time; the default of 30 s fails on slow lines.
        "timeout": timedelta(minutes=10),
    }
    if headers := settings.headers_for(access.url):
        options["default_headers"] = dict(headers)
    if proxy := settings.proxy_for(access.url):
        options["proxy_url"] = proxy
    elif host := urlsplit(access.url).hostname:
        # Without a proxy the library would use that of the environment.
        options |= {"proxy_url": "http://none.invalid", "proxy_excludes": host}
    if isinstance(settings.verify, str):
        options["root_certificate"] = _certificates(Path(settings.verify))
    return options


def _certificates(path: Path) -> bytes:
    """Read the trusted certificates from a file, or from a folder of files as OpenSSL does."""
    try:
        files = [file for file in sorted(path.iterdir()) if file.is_file()] if path.is_dir() else [path]
        contents = [content for file in files if _CERTIFICATE in (content := file.read_bytes())]
        if not contents:
            raise OSError("no certificate in it")
    except OSError as error:
        raise unreadable_certificates(error) from error
    return b"\n".join(contents)
