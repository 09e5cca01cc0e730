"""Scalars in the TensorBoard event files of a job: `python -m … <run folder>` reads the new ones.

They are stored in a curve file, as the metrics of the log are. `scalars.json` has the offset read in each file, and the
number of bytes read in total, damaged ones included:

```
{"read": 4711, "complete": false, "files": {"train/events.out.tfevents.1": {"version": "…", "size": 99, "read": 99}}}
```
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from airflow_training.api.metrics import is_finite
from airflow_training.service.atomic_files import read_untrusted_json, try_lock_file, write_json
from airflow_training.service.insights.curve_file import CurveFile, NewPoint
from airflow_training.service.insights.reader_limits import limit_program
from airflow_training.service.runners.run_folder import Exit, Spec
from airflow_training.service.storage.job_files import JobFile, JobFiles, files_of

SCALARS_FILE = "scalars.ndjson"
_PROGRESS_FILE = "scalars.json"
_LOCK = "scalars.lock"

# Limits per job. TensorBoard's reader verifies the checksums of a megabyte in 0.1 s.
_MAX_BYTES = 64 * 1024 * 1024
_MAX_FILES = 1000
_MAX_NAME_LENGTH = 300
# CPU time after which a run of the program leaves the rest to the next run.
_CPU_SECONDS = 5.0
# Header and checksums of a record. Source: "TFRecords format details" in TensorFlow's guide.
_RECORD_OVERHEAD = 16
# TensorBoard's plugin for scalars. Source: tensorboard/plugins/scalar/metadata.py.
_PLUGIN = "scalars"


def unread_phase(state: Path) -> str:
    """The phase of a job that may have unread scalars, "running" or "ended"; empty if all are read."""
    if not Spec.exists(state) or _load_progress(state)["complete"]:
        return ""
    return "ended" if Exit.exists(state) else "running"


def _load_progress(state: Path) -> dict[str, Any]:
    progress = read_untrusted_json(state / _PROGRESS_FILE)
    with suppress(LookupError, TypeError, AttributeError):
        for file in progress["files"].values():
            _ = (file["version"], file["size"] + 0, file["read"] + 0)
        return {"read": progress["read"] + 0, "complete": progress["complete"] is True, "files": progress["files"]}
    return {"read": 0, "complete": False, "files": {}}


def read_new_scalars(state: Path) -> None:
    """Read the new records in the event files of a job, for some seconds of CPU time.

    Raises:
        StorageUnavailable: The store does not respond.
    """
    end = time.process_time() + _CPU_SECONDS
    ended = Exit.exists(state)
    progress, files = _load_progress(state), files_of(state)
    if not files or progress["complete"]:
        return
    curves = CurveFile(state / SCALARS_FILE, progress["read"])
    # TensorBoard recognizes event files by the same part of their names.
    found = [file for file in files.all() if "tfevents" in PurePosixPath(file.name).name][:_MAX_FILES]
    progress["files"] = {file.name: progress["files"][file.name] for file in found if file.name in progress["files"]}
    unread = [file for file in found if not _is_read(file, progress)]
    while unread and progress["read"] < _MAX_BYTES and time.process_time() < end:
        _read_file(unread.pop(0), files, progress, curves, end)
        # Saved for each file: a limit may end the program at any time.
        write_json(state / _PROGRESS_FILE, progress)
    finished = progress["read"] >= _MAX_BYTES or all(_is_read(file, progress) for file in found)
    write_json(state / _PROGRESS_FILE, {**progress, "complete": ended and finished})
    curves.close()


def _is_read(file: JobFile, progress: dict[str, Any]) -> bool:
    before = progress["files"].get(file.name)
    return before is not None and (before["version"], before["size"]) == (file.version, file.size)


def _read_file(file: JobFile, files: JobFiles, progress: dict[str, Any], curves: CurveFile, end: float) -> None:
    """Read a file from its last offset, and update the progress."""
    before = progress["files"].get(file.name, {"read": 0})
    # A file that has become shorter was replaced.
    start = before["read"] if before["read"] <= file.size else 0
    content = files.read(file.name, start, _MAX_BYTES - progress["read"])
    read = 0
    for length, at, points in _EventReader(PurePosixPath(file.name).parent, curves.names).read(content):
        read += length
        progress["read"] += length
        curves.add(points, at, progress["read"])
        if time.process_time() > end and read < len(content):
            # A size that no file has: the file counts as unread.
            progress["files"][file.name] = {"version": file.version, "size": -1, "read": start + read}
            return
    # Damaged bytes count as read.
    progress["read"] += len(content) - read
    progress["files"][file.name] = {"version": file.version, "size": file.size, "read": start + read}


class _EventReader:
    """Reads the scalars of an event file.

    Args:
        folder: The folder of the file, relative to the job's; it prefixes the names of the curves.
        names: The names of the existing curves: TensorFlow 2 may mark only the first value of a tag as a scalar.
    """

    def __init__(self, folder: PurePosixPath, names: set[str]) -> None:
        self._prefix = "" if str(folder) == "." else f"{folder}/"
        self._names = names

    def read(self, content: bytes) -> Iterator[tuple[int, float, list[NewPoint]]]:
        """Yield the length, the time and the points of each record."""
        # This module keeps TensorBoard from importing TensorFlow.
        sys.modules["tensorboard.compat.notf"] = ModuleType("tensorboard.compat.notf")
        # Imported late: it takes half a second, and most jobs have no event files.
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader  # noqa: PLC0415
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415

        # The loader needs a path. A file in memory leaves nothing on the disk when the program is killed.
        with os.fdopen(os.memfd_create("events"), "wb") as copy:
            copy.write(content)
            copy.flush()
            # A damaged header ends the file; after a damaged content, the next record may be intact.
            with suppress(Exception):
                for record in RawEventFileLoader(f"/proc/self/fd/{copy.fileno()}").Load():
                    points, at = [], 0.0
                    with suppress(Exception):
                        event = Event.FromString(record)
                        at = event.wall_time
                        points = list(self._points(event)) if is_finite(at) else []
                    yield len(record) + _RECORD_OVERHEAD, at, points

    def _points(self, event: Any) -> Iterator[NewPoint]:
        for value in event.summary.value:
            name = self._prefix + value.tag
            if value.tag and len(name) <= _MAX_NAME_LENGTH and name.isprintable():
                number = self._number(name, value)
                if number is not None and is_finite(number):
                    yield NewPoint(name, "step", event.step, number)

    def _number(self, name: str, value: Any) -> float | None:
        from tensorboard.util.tensor_util import make_ndarray  # noqa: PLC0415 - see above

        if value.HasField("simple_value"):
            return float(value.simple_value)
        if value.metadata.plugin_data.plugin_name == _PLUGIN:
            self._names.add(name)
        # Other shapes would allocate as much memory as they claim.
        if name in self._names and all(dimension.size == 1 for dimension in value.tensor.tensor_shape.dim):
            return float(make_ndarray(value.tensor).item())
        return None


def main() -> None:
    """Read the files of one job, unless another process does."""
    state = Path(sys.argv[1])
    limit_program()
    with try_lock_file(state / _LOCK) as free:
        if free:
            read_new_scalars(state)


if __name__ == "__main__":
    main()
