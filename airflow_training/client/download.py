"""Download of a job's files: several at a time, in constant memory; unchanged local files are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import uuid4

from airflow_training.client.etag import matches
from airflow_training.client.storage import JobStorage, StoredFile
from airflow_training.exceptions import StorageError

_AT_ONCE = 4


async def download(
    storage: JobStorage,
    folder: str,
    files: Sequence[StoredFile],
    target: Path,
    *,
    done: Callable[[Path, bool], None] = lambda *_: None,
    progress: Callable[[int], None] = lambda _: None,
) -> None:
    """Download files of a folder; each appears under its name when it is complete.

    Args:
        storage: The storage.
        folder: The folder in the storage.
        files: The files of that folder to download.
        target: The local folder.
        done: Called with each local file, and whether it had to be copied.
        progress: Called with the number of further bytes.

    Raises:
        StorageError: A file cannot be read or written, or its name leads out of `target`.
    """
    waiting = iter(await asyncio.to_thread(_local_paths, target, folder, files))

    async def work() -> None:
        for file, path in waiting:
            try:
                copied = not await asyncio.to_thread(_is_unchanged, path, file)
                if copied:
                    await _copy(storage, file, path, progress)
                else:
                    progress(file.size)
            except OSError as error:
                raise StorageError(f"{path} could not be written: {error.strerror or error}.", code="AT-321") from error
            done(path, copied)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


def _local_paths(target: Path, folder: str, files: Sequence[StoredFile]) -> list[tuple[StoredFile, Path]]:
    root = target.resolve()
    return [(file, _local_path(root, file.key.removeprefix(f"{folder}/"))) for file in files]


def _local_path(root: Path, name: str) -> Path:
    # A job may name a file "../../.bashrc", and an existing link may lead out too.
    path = root / PurePosixPath(name)
    try:
        within = ".." not in PurePosixPath(name).parts and path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link to itself
        within = False
    if not within:
        raise StorageError(
            f"The job left a file called {name!r}, which would lie outside of {root}: nothing is copied.", code="AT-322"
        )
    return path


def _is_unchanged(path: Path, file: StoredFile) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        return matches(file.etag, content, JobStorage.PART_SIZE)


async def _copy(storage: JobStorage, file: StoredFile, path: Path, progress: Callable[[int], None]) -> None:
    content = await asyncio.to_thread(_begin, path)
    try:
        async with aclosing(storage.read(file.key)) as pieces:
            async for piece in pieces:
                await asyncio.to_thread(content.write, piece)
                progress(len(piece))
        await asyncio.to_thread(_finish, content, path)
    finally:
        await asyncio.to_thread(_remove, content)


def _begin(path: Path) -> BinaryIO:
    """Open a file with a unique name beside the target: jobs and users leave files of any name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A file of `tempfile` would be private, whatever the umask.
    return path.with_name(f".{uuid4().hex}").open("xb")


def _finish(content: BinaryIO, path: Path) -> None:
    content.close()
    Path(content.name).replace(path)


def _remove(content: BinaryIO) -> None:
    content.close()
    Path(content.name).unlink(missing_ok=True)
