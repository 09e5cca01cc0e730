"""The protocol of the log of a job on Ray, from the node to the supervisor: one numbered JSON frame per line.

Ray stores logs as text, and resends a log from its beginning after a connection error. In frames, every byte arrives
unchanged, once and in order, along with events of the job:

```
{"frame": 0, "at": 1795594084.81, "output": "Epoch 1/5\\n"}        output, and its time
{"frame": 1, "at": …, "running": true}                            the command starts
{"frame": 2, "at": …, "failed": "…"}                              it cannot be started
{"frame": 3, "at": …, "ended": {"status": 0, "stopped": false, "exceeded": ""}}
{"frame": 4, "at": …, "not_copied": "…"}                          files that were not copied back
{"frame": 5, "at": …, "usage": [1795594084.81, 0.98, 212.4, null, null]}    a sample, as in usage.py
{"frame": 6, "at": …, "unended": true}                            the unended line is shown as it is now
```

Bytes that are not UTF-8 are lone surrogates, as in Python's `surrogateescape`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.secret_masks import Masks
from airflow_training.service.runners.supervisor.usage import Sample, sample_of


class FrameWriter:
    """Writes the frames.

    Args:
        write: Receives each line.
        limit: Bytes of output to write at most.
        masks: The job's secrets: Ray shows the frames in its own log.
    """

    def __init__(self, write: Callable[[str], object], limit: int, masks: Masks | None = None) -> None:
        self._masks = masks or Masks()
        self._write_line = write
        self._budget = limit
        self._number = 0
        self._in_line = False

    def event(self, **fields: Any) -> None:
        """Write an event, after all output so far."""
        self._take(self._masks.rest())
        self._frame(**fields)

    def sample(self, usage: Sample) -> None:
        """Write a sample; unlike an event, it may come between two parts of a secret."""
        self._frame(usage=usage)

    def _frame(self, **fields: Any) -> None:
        self._write_line(json.dumps({"frame": self._number, "at": time.time(), **fields}) + "\n")
        self._number += 1

    def write(self, piece: bytes, /) -> None:
        """Write output of the job."""
        self._take(self._masks.take(piece))

    def _take(self, piece: bytes) -> None:
        if piece and self._budget > 0:
            self._frame(output=piece.decode("utf-8", "surrogateescape"))
            self._in_line = not piece.endswith(b"\n")
        self._budget -= len(piece)

    def show_line(self) -> None:
        """Have the unended line shown, except for an end that may be part of a secret."""
        if self._budget > 0:
            self._frame(unended=True)

    def emit(self, text: str) -> None:
        """Write lines of the service."""
        self._take(self._masks.rest())
        lines = "".join(f"[service] {line}\n" for line in self._masks.mask(text).splitlines())
        self._take(f"{chr(10) if self._in_line else ''}{lines}".encode())


class FrameReader:
    """Decodes frames, and lines of the helper between them.

    Args:
        log: Receives output with the time and the number of its frame. A frame without output sets only the time, for
            the lines that the service emits next.
        take_sample: Receives the samples, some repeatedly after a restart of the helper.
    """

    def __init__(self, log: JobLog, take_sample: Callable[[Sample], None]) -> None:
        self._log = log
        self._take_sample = take_sample
        self._partial = b""

    def show_line(self) -> None:
        """Do nothing: frames state when to show a line, so that repeated frames have the same result."""

    def write(self, piece: bytes, /) -> None:
        """Decode the next bytes, which may end within a line."""
        *lines, self._partial = (self._partial + piece).split(b"\n")
        for line in lines:
            frame = read_frame(line.decode(errors="replace"))
            if frame is None:
                # A line of the helper.
                self._log.write(line + b"\n", datetime.now(timezone.utc))
            elif "usage" in frame:
                if sample := sample_of(frame["usage"]):
                    self._take_sample(sample)
            else:
                output: str | None = frame.get("output")
                at = datetime.fromtimestamp(frame["at"], timezone.utc)
                if "unended" in frame:
                    self._log.show_line(at, frame["frame"])
                    continue
                # Other frames stay unnumbered here: the next helper must receive them again.
                number = None if output is None else frame["frame"]
                self._log.write((output or "").encode("utf-8", "surrogateescape"), at, number)


def read_frame(line: str) -> dict[str, Any] | None:
    """Parse a frame; None if the line is not one, such as Ray's own."""
    try:
        frame = json.loads(line)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) and isinstance(frame.get("frame"), int) else None
