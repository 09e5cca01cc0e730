"""How much of which log goes into one reply: a flood in one log must not hold up the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

LARGEST_REPLY = 256 * 1024
"""Bytes of records in a reply."""

LARGEST_SHARE = 64 * 1024
"""Bytes of them that are of one log, where its records are no longer."""

_LONGEST_RECORD = 1024 * 1024
# Most records have less: one read is enough then.
_FIRST_READ = 1024


@dataclass(frozen=True)
class GrownLog:
    """A log that has more than its reader knows.

    Attributes:
        file: The file with its records.
        offset: How many bytes of it are known.
        size: How many it has.
        ended: Whether it is complete: what it has behind its last line feed is a record then.
    """

    file: str
    offset: int
    size: int
    ended: bool

    @property
    def wanted(self) -> int:
        """Bytes that are to be sent, where the others leave room for them."""
        return min(self.size - self.offset, LARGEST_SHARE)

    def read(self, most: int) -> bytes:
        """The first of the bytes that are not known."""
        # It may have been removed just now.
        with suppress(FileNotFoundError):
            file = os.open(self.file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                return os.pread(file, min(most, self.size - self.offset), self.offset)
            finally:
                os.close(file)
        return b""


@dataclass
class _Share:
    """What is sent of a log: whole records.

    Attributes:
        log: Which one.
        content: What was read of it.
        end: The end of its first record; all that was read where it has no other end any more.
    """

    log: GrownLog
    content: bytes
    end: int

    @property
    def more(self) -> int:
        """Bytes that are to be sent behind the first record."""
        return max(self.log.wanted - self.end, 0)

    def records(self, more: int) -> bytes:
        """The first record, and those behind it that fit in so many bytes."""
        most = self.end + min(more, self.more)
        if most > len(self.content):
            self.content = self.log.read(most)
        # What ended with the log has no line feed.
        end = most if self.log.ended and most == self.log.size - self.log.offset else self.end
        return self.content[: max(self.content.rfind(b"\n", 0, most) + 1, end)]


def shared_out(logs: Sequence[GrownLog]) -> dict[str, bytes]:
    """The records that are sent, by the file: of each log one at least, and of what is left equal shares.

    Where one record of each is too much already, the first in the sequence have theirs, and the others are not among
    the files. A log that has no whole record is, with nothing.
    """
    probable = _level([log.wanted for log in logs], LARGEST_REPLY)
    left = LARGEST_REPLY
    shares: list[_Share] = []
    records: dict[str, bytes] = {}
    for log in logs:
        share = _begun(log, max(probable, _FIRST_READ))
        if not share:
            records[log.file] = b""
            continue
        if shares and share.end > left:
            if left < _FIRST_READ:
                break
            continue
        shares.append(share)
        left -= share.end
    level = _level([share.more for share in shares], left)
    return records | {share.log.file: share.records(level) for share in shares}


def _begun(log: GrownLog, probable: int) -> _Share | None:
    """The share of a log with its first record; None where that has not ended yet."""
    most = probable
    while True:
        content = log.read(most)
        if end := content.find(b"\n") + 1:
            return _Share(log, content, end)
        if content and log.ended and len(content) == log.size - log.offset:
            return _Share(log, content, len(content))
        if len(content) < most or most == _LONGEST_RECORD:
            return None
        most = min(8 * most, _LONGEST_RECORD)


def _level(wanted: Sequence[int], most: int) -> int:
    """The share that is the same for all who want more than it, so that all together have so much.

    >>> _level([10, 100, 100], 90)
    40
    """
    if sum(wanted) <= most:
        return max(wanted, default=0)
    left = most
    for index, least in enumerate(sorted(wanted)):
        level = max(left, 0) // (len(wanted) - index)
        if least > level:
            return level
        left -= least
    return left
