"""Files of a job, copied to this machine: several at a time, in constant memory, and what is here already is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path, PurePosixPath

from airflow_training.client.etag import matches
from airflow_training.client.storage import JobStorage, StoredFile
from airflow_training.exceptions import StorageError

# What is being copied has this at the end of its name: nobody takes it for the whole file.
_INCOMPLETE = ".incomplete"
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
    if ".." in PurePosixPath(name).parts or not path.resolve().is_relative_to(root):
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
    path.parent.mkdir(parents=True, exist_ok=True)
    incomplete = path.with_name(path.name + _INCOMPLETE)
    try:
        with incomplete.open("wb") as content:
            async with aclosing(storage.read(file.key)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(content.write, piece)
                    progress(len(piece))
        incomplete.replace(path)
    finally:
        incomplete.unlink(missing_ok=True)
