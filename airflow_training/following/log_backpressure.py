"""Whether Airflow has read what triggers logged, and whether it keeps up.

Triggers log into a socket, out of which their supervisor reads a piece in each of its rounds. When it learns that a
trigger has finished it closes that trigger's log, whatever of it is still in the socket: on a busy machine the end of a
log is lost (Airflow 3.3, `TriggerRunnerSupervisor._handle_request`).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import select
import socket
import stat
import struct
import sys
import termios
from contextlib import suppress
from typing import Any

from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import MaskSecret

# Bytes that one round reads of the log (the default of Airflow's `make_buffered_socket_reader`).
_PIECE = 4096
# Seconds to wait for room in the socket. A write waits as well, and for as long as it takes.
_WAITS_FOR_ROOM = 1.0


class _Rounds:
    """The rounds of the supervisor, counted by those who wait for them, together."""

    def __init__(self) -> None:
        self.count = 0
        self.turn = asyncio.Lock()


_rounds = _Rounds()


async def log_is_read() -> None:
    """Wait until the supervisor has read all that was logged up to now, by any trigger."""
    # One more: the round under way may be past the log already.
    last = _rounds.count + _unread() // _PIECE + 1
    while _rounds.count < last:
        async with _rounds.turn:
            if _rounds.count < last:
                # A round answers one request; to mask nothing is the one that costs nothing.
                await task_runner.SUPERVISOR_COMMS.asend(MaskSecret(value=""))
                _rounds.count += 1


def wait_for_room() -> None:
    """Wait until Airflow has read most of what was logged; to be called in a thread.

    A trigger that logs while the socket is full blocks, and most triggers log on the event loop. The kernel reports a
    socket as writable while at most a quarter of its buffer is in use, so the rest is left to them.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and (log := _socket_of(handler)) is not None:
            writable = select.poll()
            writable.register(log, select.POLLOUT)
            writable.poll(_WAITS_FOR_ROOM * 1000)


def _unread() -> int:
    """At least as many bytes as wait to be read: where that cannot be asked, as many as a socket can hold."""
    # Airflow configures one socket for its own lines and Python's alike; a handler of somebody else may have another.
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    unread = [found for handler in handlers if (found := _unread_of(handler)) is not None]
    if unread:
        return max(unread)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return ours.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def _unread_of(handler: logging.StreamHandler[Any]) -> int | None:
    # Elsewhere than on Linux, a socket that is read late tells nothing.
    if sys.platform == "linux" and (log := _socket_of(handler)) is not None:
        with suppress(OSError):
            (unread,) = struct.unpack("i", fcntl.ioctl(log, termios.TIOCOUTQ, bytes(4)))
            return int(unread)
    return None


def _socket_of(handler: logging.StreamHandler[Any]) -> int | None:
    with suppress(OSError, ValueError, AttributeError):
        log = int(handler.stream.fileno())
        return log if stat.S_ISSOCK(os.fstat(log).st_mode) else None
    return None
