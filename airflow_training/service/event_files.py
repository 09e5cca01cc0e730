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
from contextlib import suppress
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
# The plugin of TensorBoard that shows scalars. Source: tensorboard/plugins/scalar/metadata.py.
_PLUGIN = "scalars"


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
        for length, at, points in _Reader(PurePosixPath(file.name).parent, curves.names).read(content):
            if time.monotonic() > end:
                whole = False
                break
            read += length
            known["read"] += length
            curves.add(points, at, known["read"])
        # What was not read to its end is looked at again.
        size = file.size if whole else -1
        known["files"][file.name] = {"version": file.version, "size": size, "read": start + read}
        if read:
            write_json(state / _READ_FILE, known)
        if not whole:
            break
    write_json(state / _READ_FILE, known)
    curves.close()


class _Reader:
    """Reads the scalars of an event file.

    Args:
        folder: Its folder in that of the job, which is a part of the names of its curves.
        known: Curves of it that are known already; of TensorFlow 2, only the first value may say that it is a scalar.
    """

    def __init__(self, folder: PurePosixPath, known: set[str]) -> None:
        self._above = "" if str(folder) == "." else f"{folder}/"
        self._known = known

    def read(self, content: bytes) -> Iterator[tuple[int, float, list[NewPoint]]]:
        """Read the scalars of each record: its length, its time, and the points."""
        # TensorBoard takes TensorFlow where it finds that, unless there is this module.
        sys.modules["tensorboard.compat.notf"] = ModuleType("tensorboard.compat.notf")
        # It takes half a second, and most jobs have no such files.
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # noqa: PLC0415
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415

        with tempfile.NamedTemporaryFile() as copy:
            copy.write(content)
            copy.flush()
            # Whatever is wrong with a record's head, the file ends there; with its content, the next one may be good.
            with suppress(Exception):
                for record in RawEventFileLoader(copy.name).Load():
                    points, at = [], 0.0
                    with suppress(Exception):
                        event = Event.FromString(record)
                        at = event.wall_time
                        points = list(self._points(event)) if is_finite(at) else []
                    yield len(record) + _AROUND_A_RECORD, at, points

    def _points(self, event: Any) -> Iterator[NewPoint]:
        for value in event.summary.value:
            name = self._above + value.tag
            if value.tag and len(name) <= _LONGEST_NAME and name.isprintable():
                number = self._number(name, value)
                if number is not None and is_finite(number):
                    yield NewPoint(name, "step", event.step, number)

    def _number(self, name: str, value: Any) -> float | None:
        from tensorboard.util.tensor_util import make_ndarray  # noqa: PLC0415 - see above

        if value.HasField("simple_value"):
            return float(value.simple_value)
        if value.metadata.plugin_data.plugin_name == _PLUGIN:
            self._known.add(name)
        # Of any other shape, it would take as much memory as it claims.
        if name in self._known and all(dimension.size == 1 for dimension in value.tensor.tensor_shape.dim):
            return float(make_ndarray(value.tensor).item())
        return None


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
