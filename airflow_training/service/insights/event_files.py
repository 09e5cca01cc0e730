"""The scalars in the TensorBoard event files of a job: `python -m … <state folder>` reads what is new of them.

They are kept as those of the log are. `scalars.json` says how far each file was read, and how many bytes that took in
all, damaged ones too:

```
{"read": 4711, "complete": false, "files": {"train/events.out.tfevents.1": {"version": "…", "size": 99, "read": 99}}}
```
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from airflow_training.api.metrics import is_finite
from airflow_training.service.durable_files import read_damaged_json, write_json
from airflow_training.service.insights.curve_file import CurveFile, NewPoint
from airflow_training.service.insights.reader_limits import limit_this_program
from airflow_training.service.runners.run_folder import EXIT, SPECIFICATION
from airflow_training.service.storage.job_files import JobFile, JobFiles, files_of

SCALARS_FILE = "scalars.ndjson"
_READ_FILE = "scalars.json"
_LOCK = "scalars.lock"

# What is read of a job: TensorBoard's reader checks the sums of a megabyte in a tenth of a second.
_MOST_BYTES = 64 * 1024 * 1024
_MOST_FILES = 1000
_LONGEST_NAME = 300
# After so many seconds of the processor, which take a while beside busy jobs, a run of the program leaves the rest to
# the next one.
_SECONDS = 5.0
# The head and the sums of a record. Source: "TFRecords format details" in TensorFlow's guide.
_AROUND_A_RECORD = 16
# The plugin of TensorBoard that shows scalars. Source: tensorboard/plugins/scalar/metadata.py.
_PLUGIN = "scalars"


def what_to_read(state: Path) -> str:
    """What of a job may have scalars that were not read: its files while it "runs", or has "ended"; else ""."""
    if not (state / SPECIFICATION).exists() or _known(state)["complete"]:
        return ""
    return "ended" if (state / EXIT).exists() else "runs"


def _known(state: Path) -> dict[str, Any]:
    known = read_damaged_json(state / _READ_FILE)
    with suppress(LookupError, TypeError, AttributeError):
        for file in known["files"].values():
            _ = (file["version"], file["size"] + 0, file["read"] + 0)
        return {"read": known["read"] + 0, "complete": known["complete"] is True, "files": known["files"]}
    return {"read": 0, "complete": False, "files": {}}


def read_news(state: Path) -> None:
    """Read what is new in the event files of a job, for some seconds of the processor.

    Raises:
        StorageAway: The store does not answer.
    """
    end = time.process_time() + _SECONDS
    ended = (state / EXIT).exists()
    known, files = _known(state), files_of(state)
    if not files or known["complete"]:
        return
    curves = CurveFile(state / SCALARS_FILE, known["read"])
    # As TensorBoard finds them, by their names.
    found = [file for file in files.all() if "tfevents" in PurePosixPath(file.name).name][:_MOST_FILES]
    known["files"] = {file.name: known["files"][file.name] for file in found if file.name in known["files"]}
    left = [file for file in found if not _is_read(file, known)]
    while left and known["read"] < _MOST_BYTES and time.process_time() < end:
        _read(left.pop(0), files, known, curves, end)
        # Whatever ends the program, this is done.
        write_json(state / _READ_FILE, known)
    finished = known["read"] >= _MOST_BYTES or all(_is_read(file, known) for file in found)
    write_json(state / _READ_FILE, {**known, "complete": ended and finished})
    curves.close()


def _is_read(file: JobFile, known: dict[str, Any]) -> bool:
    before = known["files"].get(file.name)
    return before is not None and (before["version"], before["size"]) == (file.version, file.size)


def _read(file: JobFile, files: JobFiles, known: dict[str, Any], curves: CurveFile, end: float) -> None:
    """Read a file on, and take note of how far."""
    before = known["files"].get(file.name, {"read": 0})
    # One that is shorter than before is another one.
    start = before["read"] if before["read"] <= file.size else 0
    content = files.read(file.name, start, _MOST_BYTES - known["read"])
    read = 0
    for length, at, points in _Reader(PurePosixPath(file.name).parent, curves.names).read(content):
        read += length
        known["read"] += length
        curves.add(points, at, known["read"])
        if time.process_time() > end and read < len(content):
            # What was not read to its end is looked at again.
            known["files"][file.name] = {"version": file.version, "size": -1, "read": start + read}
            return
    # What is damaged was looked at as well.
    known["read"] += len(content) - read
    known["files"][file.name] = {"version": file.version, "size": file.size, "read": start + read}


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

        # It reads files by their names; this one has none on a disk, where it would stay when the program is killed.
        with os.fdopen(os.memfd_create("events"), "wb") as copy:
            copy.write(content)
            copy.flush()
            # Whatever is wrong with a record's head, the file ends there; with its content, the next one may be good.
            with suppress(Exception):
                for record in RawEventFileLoader(f"/proc/self/fd/{copy.fileno()}").Load():
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
    limit_this_program()
    with (state / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        read_news(state)


if __name__ == "__main__":
    main()
