"""The scalars in the TensorBoard event files of a job: `python -m … <state folder>` reads what is new of them.

They are kept as those of the log are. `scalars.json` says how far each file was read:

```
{"read": 4711, "complete": false, "files": {"train/events.out.tfevents.1": {"version": "…", "size": 99, "read": 99}}}
```
"""

from __future__ import annotations

import fcntl
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from airflow_training.jobs.metrics import is_finite
from airflow_training.service.curve_file import CurveFile, NewPoint
from airflow_training.service.files import read_json, write_json
from airflow_training.service.job_files import JobFile, JobFiles, files_of
from airflow_training.service.runners.state_folder import EXIT

SCALARS_FILE = "scalars.jsonl"
_READ_FILE = "scalars.json"
_LOCK = "scalars.lock"

INSTALLED = find_spec("tensorboard") is not None
"""Whether TensorBoard is there to read them."""

# What is read of a job: its own reader checks the sums of a megabyte in a tenth of a second.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_FILES = 1000
_LONGEST_NAME = 300
# A run of the program takes so many seconds, and leaves the rest to the next one.
_SECONDS = 5.0
# A record may claim any size, and is read before that is known to be wrong.
_MEMORY = 4 * 1024 * 1024 * 1024
# The head and the sums of a record. Source: "TFRecords format details" in TensorFlow's guide.
_AROUND_A_RECORD = 16


def has_news(state: Path) -> bool:
    """Whether there is something new to read for the program.

    Raises:
        StorageAway: The store does not answer.
    """
    ended = (state / EXIT).exists()
    known = _known(state)
    if known["complete"] or not (files := files_of(state)):
        return False
    if _new(files, known):
        return True
    if ended:
        write_json(state / _READ_FILE, {**known, "complete": True})
    return False


def _known(state: Path) -> dict[str, Any]:
    return read_json(state / _READ_FILE) or {"read": 0, "complete": False, "files": {}}


def _new(files: JobFiles, known: dict[str, Any]) -> list[JobFile]:
    """The event files that are not read to their end. Which these are: as TensorBoard finds them, by their names."""
    if known["read"] >= _MOST_BYTES:
        return []
    found = [file for file in files.all() if "tfevents" in PurePosixPath(file.name).name]
    read = known["files"]
    return [
        file
        for file in found[:_MOST_FILES]
        if file.name not in read or (read[file.name]["version"], read[file.name]["size"]) != (file.version, file.size)
    ]


def read_news(state: Path) -> None:
    """Read what is new in the event files of a job, for some seconds."""
    known, files = _known(state), files_of(state)
    if not files:
        return
    end = time.monotonic() + _SECONDS
    curves = CurveFile(state / SCALARS_FILE, known["read"])
    for file in _new(files, known):
        before = known["files"].get(file.name, {"read": 0})
        # One that is shorter than before is another one.
        start = before["read"] if before["read"] <= file.size else 0
        content = files.read(file.name, start, _MOST_BYTES - known["read"])
        read, whole = 0, True
        for length, at, points in _scalars(content, PurePosixPath(file.name).parent):
            if time.monotonic() > end:
                whole = False
                break
            read += length
            known["read"] += length
            curves.add(points, at, known["read"])
        # What was not read to its end is looked at again.
        size = file.size if whole else -1
        known["files"][file.name] = {"version": file.version, "size": size, "read": start + read}
        write_json(state / _READ_FILE, known)
        if not whole:
            break
    curves.close()


def _scalars(content: bytes, folder: PurePosixPath) -> Iterator[tuple[int, float, list[NewPoint]]]:
    """The scalars of each record: its length, its time, and the points."""
    # TensorBoard takes TensorFlow where it finds that, unless there is this module.
    sys.modules["tensorboard.compat.notf"] = ModuleType("tensorboard.compat.notf")
    from tensorboard import data_compat, dataclass_compat  # noqa: PLC0415 - takes half a second, and not all need it
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # noqa: PLC0415
    from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415

    metadata: dict[str, Any] = {}
    with tempfile.NamedTemporaryFile() as copy:
        copy.write(content)
        copy.flush()
        records = RawEventFileLoader(copy.name).Load()
        while True:
            points, at = [], 0.0
            try:
                record = next(records)
            except StopIteration:
                return
            except Exception:  # noqa: BLE001 - whatever is wrong with it, the file ends there
                return
            try:
                event = Event.FromString(record)
                at = event.wall_time
                if event.HasField("summary") and is_finite(at):
                    (event,) = dataclass_compat.migrate_event(data_compat.migrate_event(event), metadata)
                    points = list(_points(event, folder))
            except Exception:  # noqa: BLE001, S110 - whatever is wrong with a record, the next one may be good
                pass
            yield len(record) + _AROUND_A_RECORD, at, points


def _points(event: Any, folder: PurePosixPath) -> Iterator[NewPoint]:
    from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR  # noqa: PLC0415
    from tensorboard.util.tensor_util import make_ndarray  # noqa: PLC0415

    for value in event.summary.value:
        name = value.tag if str(folder) == "." else f"{folder}/{value.tag}"
        if value.metadata.data_class != DATA_CLASS_SCALAR or len(name) > _LONGEST_NAME or not name.isprintable():
            continue
        if value.tag and all(dimension.size == 1 for dimension in value.tensor.tensor_shape.dim):
            number = float(make_ndarray(value.tensor).item())
            if is_finite(number):
                yield NewPoint(name, "step", event.step, number)


def main() -> None:
    """Read for one job, unless somebody does already."""
    state = Path(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    with (state / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        os.nice(10)
        read_news(state)


if __name__ == "__main__":
    main()
