"""Files of a job, copied to this machine: several at a time, in constant memory, and what is here already is kept."""

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
    """Copy files of a folder; each appears under its name when it is whole.

    Args:
        storage: Where they are.
        folder: The folder there whose content `target` is to hold.
        files: Those of its files that are wanted.
        target: The folder here.
        done: Is told of each file that is here, and whether it had to be copied.
        progress: Is told how many more bytes are here.

    Raises:
        StorageError: They cannot be read, or not be written here; or one has a name that leads out of `target`.
    """
    waiting = iter(await asyncio.to_thread(_places, target, folder, files))

    async def work() -> None:
        for file, path in waiting:
            try:
                copied = not await asyncio.to_thread(_is_here, path, file)
                if copied:
                    await _copy(storage, file, path, progress)
                else:
                    progress(file.size)
            except OSError as error:
                raise StorageError(f"{path} could not be written: {error.strerror or error}.", code="AT-321") from error
            done(path, copied)

    await asyncio.gather(*(work() for _ in range(_AT_ONCE)))


def _places(target: Path, folder: str, files: Sequence[StoredFile]) -> list[tuple[StoredFile, Path]]:
    """Find the place of each file."""
    root = target.resolve()
    return [(file, _place(root, file.key.removeprefix(f"{folder}/"))) for file in files]


def _place(root: Path, name: str) -> Path:
    # A job chooses the names of its files, and may choose "../../.bashrc"; a link that lies here leads out as well.
    path = root / PurePosixPath(name)
    try:
        within = ".." not in PurePosixPath(name).parts and path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):  # a link that leads to itself
        within = False
    if not within:
        raise StorageError(
            f"The job left a file called {name!r}, which would lie outside of {root}: nothing is copied.", code="AT-322"
        )
    return path


def _is_here(path: Path, file: StoredFile) -> bool:
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
    """Open a file beside one, of a name that nobody else has: a job leaves files of any name, and so does the user."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # One that tempfile makes is for its owner alone, whatever the umask says.
    return path.with_name(f".{uuid4().hex}").open("xb")


def _finish(content: BinaryIO, path: Path) -> None:
    content.close()
    Path(content.name).replace(path)


def _remove(content: BinaryIO) -> None:
    content.close()
    Path(content.name).unlink(missing_ok=True)
