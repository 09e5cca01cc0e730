"""The level of a log line, where the line itself tells it."""

from __future__ import annotations

import logging
import re

# A time, a program's or a module's name, brackets: what stands before the level in the formats people use.
_BEFORE = r"^(?:[\d\[(][\d:.,TZ/+\- \])]*)?(?:[\w.\-]+ +- +)?[\[(<|\- ]*"
_WORD = re.compile(_BEFORE + r"(WARN(?:ING)?|ERR(?:OR)?|CRITICAL|FATAL)\b[\])>|: ,\-]")
# glog and absl: `E0000 00:00:1714.1 123 file.cc:1] …`; TensorFlow: `2026-11-24 10:00:00.123456: E tensorflow/…`.
_LETTER = re.compile(r"^(?:([WEF])\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: ([WEF]) )")
_LEVELS = {"W": logging.WARNING, "E": logging.ERROR, "C": logging.CRITICAL, "F": logging.CRITICAL}


def level_of(line: str) -> int:
    """Read the level that a line was written with, as a level of Python's `logging`.

    What tells no level is INFO, and so is what tells a lower one: a task log is not shown below INFO unless Airflow is
    told so, and no line must be lost.

    >>> level_of("2026-11-24 10:00:00,123 WARNING root: low memory")
    30
    >>> level_of("ERRORS: 0")
    20
    """
    found = _WORD.match(line) or _LETTER.match(line)
    if not found:
        return logging.INFO
    return _LEVELS[next(group for group in found.groups() if group)[0]]
