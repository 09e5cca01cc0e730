"""The log of a job on Ray, as the program on the node writes it for the service: a frame in each line, numbered.

Ray keeps a log as text, and sends it anew from its beginning whenever a connection breaks. In frames, every byte
arrives as it was written, once and in order, and beside them what the node has to say of the job:

```
{"frame": 0, "at": 1795594084.81, "output": "Epoch 1/5\\n"}        what the job wrote, and when
{"frame": 1, "at": …, "running": true}                            the command starts
{"frame": 2, "at": …, "failed": "…"}                              it cannot be started
{"frame": 3, "at": …, "ended": {"status": 0, "stopped": false, "overstepped": ""}}
{"frame": 4, "at": …, "left": "…"}                                what of the files was not brought back
{"frame": 5, "at": …, "usage": [1795594084.81, 0.98, 212.4, null, null]}    a sample, as in usage_file.py
{"frame": 6, "at": …, "unended": true}                            the line that has not ended is shown as it is
```

Bytes that are no UTF-8 are lone surrogates, as Python's `surrogateescape` has them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.secret_masks import Masks
from airflow_training.service.runners.supervisor.usage import Sample
from airflow_training.service.runners.supervisor.usage_file import sample_of


class FrameWriter:
    """Writes the frames.

    Args:
        write: Takes a line.
        limit: Bytes of output after which no more is written.
        masks: The job's secrets: Ray shows the frames in its own log.
    """

    def __init__(self, write: Callable[[str], object], limit: int, masks: Masks | None = None) -> None:
        self._masks = masks or Masks()
        self._take_line = write
        self._left = limit
        self._number = 0
        self._in_a_line = False

    def tell(self, **what: Any) -> None:
        """Write a frame, after all output of the job."""
        self._take(self._masks.rest())
        self._frame(**what)

    def sample(self, usage: Sample) -> None:
        """Write a sample, which may come between two halves of a secret."""
        self._frame(usage=usage)

    def _frame(self, **what: Any) -> None:
        self._take_line(json.dumps({"frame": self._number, "at": time.time(), **what}) + "\n")
        self._number += 1

    def write(self, piece: bytes, /) -> None:
        """Write what the job wrote."""
        self._take(self._masks.take(piece))

    def _take(self, piece: bytes) -> None:
        if piece and self._left > 0:
            self._frame(output=piece.decode("utf-8", "surrogateescape"))
            self._in_a_line = not piece.endswith(b"\n")
        self._left -= len(piece)

    def show_line(self) -> None:
        """Have the line that has not ended shown as it is now, but for an end that may be half a secret."""
        if self._left > 0:
            self._frame(unended=True)

    def say(self, text: str) -> None:
        """Write lines of the service's own."""
        self._take(self._masks.rest())
        lines = "".join(f"[service] {line}\n" for line in self._masks.mask(text).splitlines())
        self._take(f"{chr(10) if self._in_a_line else ''}{lines}".encode())


class FrameReader:
    """Reads the output that is in frames, their times, and what stands between them.

    Args:
        log: Takes what the job wrote, when, and the number of the frame. Of a frame without output it takes the time,
            which is its own from then on: what the service says next belongs there.
        take_sample: Is given the samples of what the job used, some of them again where another client goes on.
    """

    def __init__(self, log: JobLog, take_sample: Callable[[Sample], None]) -> None:
        self._log = log
        self._take_sample = take_sample
        self._partial = b""

    def show_line(self) -> None:
        """Do nothing: when a line of the job is shown is said in a frame, since frames that come again say the same."""

    def write(self, piece: bytes, /) -> None:
        """Take the next bytes, wherever a line ends."""
        *lines, self._partial = (self._partial + piece).split(b"\n")
        for line in lines:
            frame = read_frame(line.decode(errors="replace"))
            if frame is None:
                # The client's own last words.
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
                # What else a frame says is for the client, which a next one has to be told again.
                number = None if output is None else frame["frame"]
                self._log.write((output or "").encode("utf-8", "surrogateescape"), at, number)


def read_frame(line: str) -> dict[str, Any] | None:
    """Read a frame; None where the line is one of Ray's own."""
    try:
        frame = json.loads(line)
    except ValueError:
        return None
    return frame if isinstance(frame, dict) and isinstance(frame.get("frame"), int) else None
