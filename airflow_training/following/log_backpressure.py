"""Whether Airflow has read what triggers logged, and whether it keeps up.

Triggers log into a socket, from which their supervisor reads one chunk in each of its rounds. When a trigger finishes,
the supervisor closes its log, even if lines are still in the socket: on a busy machine the end of a log is lost
(Airflow 3.3, `TriggerRunnerSupervisor._handle_request`).
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

from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import MaskSecret

# Bytes of log that one round reads (the default of Airflow's `make_buffered_socket_reader`).
_CHUNK = 4096
# Seconds to wait for room in the socket. The write itself then waits as long as it takes.
_ROOM_TIMEOUT = 1.0


class _Rounds:
    """The rounds of the supervisor, counted once for all triggers that wait for them."""

    def __init__(self) -> None:
        self.count = 0
        self.turn = asyncio.Lock()


_rounds = _Rounds()


async def log_is_read() -> None:
    """Wait until the supervisor has read everything that any trigger has logged so far."""
    # One more: the current round may have read the log already.
    last = _rounds.count + _unread() // _CHUNK + 1
    while _rounds.count < last:
        async with _rounds.turn:
            if _rounds.count < last:
                # A round answers one request; masking nothing is the cheapest.
                await task_runner.SUPERVISOR_COMMS.asend(MaskSecret(value=""))
                _rounds.count += 1


def wait_for_room() -> None:
    """Wait until Airflow has read most of what was logged; call it in a thread.

    A trigger that logs while the socket is full blocks, and most triggers log on the event loop. The kernel reports a
    socket as writable while at most a quarter of its buffer is in use: the rest remains for those triggers.
    """
    for log in _sockets():
        writable = select.poll()
        writable.register(log, select.POLLOUT)
        writable.poll(_ROOM_TIMEOUT * 1000)


def _unread() -> int:
    """An upper bound of the unread bytes: the size of a socket's buffer if the kernel does not report them."""
    unread: list[int] = []
    # Only Linux reports the unread bytes of a socket.
    if sys.platform == "linux":
        for log in _sockets():
            with suppress(OSError):
                unread += struct.unpack("i", fcntl.ioctl(log, termios.TIOCOUTQ, bytes(4)))
    if unread:
        return max(unread)
    one, other = socket.socketpair()
    with one, other:
        return one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)


def _sockets() -> list[int]:
    """The sockets of Python's log handlers: that of Airflow, for its own logging and Python's, and those of others."""
    logs: list[int] = []
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler):
            with suppress(OSError, ValueError, AttributeError):
                log = int(handler.stream.fileno())
                if stat.S_ISSOCK(os.fstat(log).st_mode):
                    logs.append(log)
    return logs
