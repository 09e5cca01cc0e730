"""Helper that copies a job's files from the bucket, and what it wrote back: `python -m … fetch|send <JSON>`."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

from airflow_training.service.atomic_files import read_json, write_json
from airflow_training.service.runners.run_folder import record_inputs
from airflow_training.service.storage.job_files import NAME_TOO_LONG, JobFiles, NotCopied, open_location, walk

_FETCHED = "fetched.json"
_MEGABYTE = 1024 * 1024
# The number of files named in the message about files that are not copied back.
_MAX_NAMED = 20
# Seconds that an S3 store may take to respond.
_TIMEOUT = 180

# Errors of a full or failing disk, after which the copy is repeated; other errors are permanent for a file.
_TEMPORARY_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOMEM, errno.EMFILE})


def fetch(files: JobFiles, work: Path, state: Path, owner: int) -> None:
    """Copy the files of a job to its working directory; no effect if that was done before.

    Args:
        files: The files in the bucket.
        work: The working directory.
        state: The job's run folder, which records what was copied.
        owner: The user that the job runs as.
    """
    if (state / _FETCHED).exists():
        return
    record_inputs(state, files.fetch(work))
    if os.getuid() == 0:
        for path in (work, *work.rglob("*")):
            os.chown(path, owner, owner, follow_symlinks=False)
    write_json(state / _FETCHED, {str(file.relative_to(work)): _version(facts) for file, facts in walk(work)})


def send(work: Path, files: JobFiles, state: Path, most: int) -> list[str]:
    """Copy the files that the job wrote or changed back to the bucket; safe to repeat.

    Args:
        work: The working directory; no process of the job may be left.
        files: The files in the bucket.
        state: The job's run folder.
        most: Bytes that may be copied. A sparse file takes less on the disk than its size.

    Returns:
        For each file that was not copied, a line with the reason.
    """
    fetched: dict[str, Any] | None = read_json(state / _FETCHED)
    if fetched is None or not work.is_dir():
        # Never fetched, or already copied back and removed.
        return []
    not_copied = []
    for file, facts in walk(work):
        name = str(file.relative_to(work))
        if fetched.get(name) == _version(facts):
            continue
        try:
            if file.is_dir():
                raise NotCopied(NAME_TOO_LONG)
            if facts.st_size > most:
                raise NotCopied("the files of the job are larger than --job-disk allows")
            files.put(file, name, state / "file.part")
        except NotCopied as error:
            not_copied.append(f"{name[:200]!r} was not copied to the bucket: {error}.")
        except OSError as error:
            if error.errno in _TEMPORARY_ERRORS:
                raise
            not_copied.append(f"{name[:200]!r} was not copied to the bucket: {error.strerror}.")
        else:
            most -= facts.st_size
    return not_copied


def _version(facts: os.stat_result) -> list[int]:
    return [facts.st_size, facts.st_mtime_ns, facts.st_ino]


def main() -> None:
    """Run the step that the arguments name."""
    step, facts = sys.argv[1], json.loads(sys.argv[2])
    work, state = Path(facts["work"]), Path(facts["state"])
    try:
        files = open_location(facts["files"], _TIMEOUT)
        if step == "fetch":
            fetch(files, work, state, facts["owner"])
            return
        not_copied = send(work, files, state, facts["most"] * _MEGABYTE)
    except Exception as error:  # noqa: BLE001 - a disk and a store fail in many ways, and each ends as a sentence
        sys.exit(f"The job's files cannot be copied: {str(error).splitlines()[0]}")
    more = [f"And {len(not_copied) - _MAX_NAMED} more."] if len(not_copied) > _MAX_NAMED else []
    sys.stdout.buffer.write("\n".join(not_copied[:_MAX_NAMED] + more).encode(errors="replace"))


if __name__ == "__main__":
    main()
