"""A job's files, brought from its folder in the bucket to where it works on a copy, and what it wrote brought back.

A job that is kept apart from the service must not write where the service, or its S3 endpoint, reads and writes: a
symbolic link there would lead them out of the bucket. What it wrote is looked at when none of it runs any more, and
only files come back: no links, no devices, no pipes.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from airflow_training.service.files import read_json, write_json
from airflow_training.service.runners.process_tree import end_with_parent

_FETCHED = "fetched.json"


def fetch(bucket_folder: Path, work: Path, state: Path, owner: int) -> None:
    """Copy the files of a job to the folder that it works in; what was copied before is left as it is.

    Args:
        bucket_folder: The job's folder in the bucket.
        work: The folder that it works in.
        state: The job's state folder, where is noted what was copied.
        owner: The user that the job runs as.
    """
    if (state / _FETCHED).exists():
        return
    bucket_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copytree(bucket_folder, work, symlinks=True, dirs_exist_ok=True)
    if os.getuid() == 0:
        for path in (work, *work.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)
    write_json(state / _FETCHED, {name: _version(work / name) for name in _files(work)})


def send(work: Path, bucket_folder: Path, state: Path, say: Callable[[str], object]) -> None:
    """Copy what the job wrote or changed back to its folder in the bucket; safe to repeat.

    Args:
        work: The folder that it worked in; nothing of it may run any more.
        bucket_folder: The job's folder in the bucket.
        state: The job's state folder.
        say: Is told of what cannot be copied, in a line each.

    Raises:
        OSError: The disk is full, or fails.
    """
    fetched = read_json(state / _FETCHED)
    if fetched is None:
        return
    for name in _files(work):
        if fetched.get(name) == _version(work / name):
            continue
        try:
            (bucket_folder / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = state / "file.part"
            shutil.copyfile(work / name, part)
            part.chmod(0o600)
            part.replace(bucket_folder / name)
        except (FileExistsError, IsADirectoryError, NotADirectoryError):
            say(f"{name} is not in the bucket: a file and a folder there have the same name.")


def _files(work: Path) -> Iterator[str]:
    """The files below a folder, by their paths in it."""
    for top, _, names in os.walk(work):
        for name in names:
            path = Path(top, name)
            if stat.S_ISREG(path.lstat().st_mode):
                yield str(path.relative_to(work))


def _version(path: Path) -> list[int]:
    facts = path.lstat()
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def main() -> None:
    """Do one of both, as a program: `python -m … fetch|send <JSON of the arguments>`."""
    end_with_parent()
    step, arguments = sys.argv[1], json.loads(sys.argv[2])
    bucket_folder, work, state = (Path(arguments[name]) for name in ("bucket_folder", "work", "state"))
    try:
        if step == "fetch":
            fetch(bucket_folder, work, state, arguments["owner"])
        else:
            send(work, bucket_folder, state, lambda line: sys.stdout.write(f"{line}\n"))
    except OSError as error:
        sys.exit(f"The job's files cannot be copied: {error}")


if __name__ == "__main__":
    main()
