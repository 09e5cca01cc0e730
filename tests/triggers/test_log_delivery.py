"""The end of a log if the triggerer is far behind: with a fake, since no real fault is reproducible."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from airflow.sdk.execution_time import task_runner

from airflow_training.following.log_backpressure import log_is_read, wait_for_room

pytestmark = pytest.mark.anyio


class Supervisor:
    """Reads a chunk of the log socket in each of its rounds, as Airflow's does, and answers one request."""

    def __init__(self) -> None:
        self.log, self.triggers = socket.socketpair()
        self.triggers.setblocking(False)
        self.log.setblocking(False)
        self.rounds = 0

    def fill(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self.triggers.send(b"x" * 1000)

    async def asend(self, _: object) -> None:
        await asyncio.sleep(0)
        self.rounds += 1
        with suppress(BlockingIOError):
            self.log.recv(4096)

    def close(self) -> None:
        self.log.close()
        self.triggers.close()


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """A supervisor whose log socket cannot be found."""
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    yield supervisor
    supervisor.close()


@pytest.fixture
def found(supervisor: Supervisor) -> Iterator[Supervisor]:
    """A supervisor whose log socket is the stream of Python's logging, as in Airflow."""
    with supervisor.triggers.makefile("w") as stream:
        handler = logging.StreamHandler(stream)
        logging.getLogger().addHandler(handler)
        yield supervisor
        logging.getLogger().removeHandler(handler)


@pytest.mark.parametrize("kind", ["supervisor", "found"])
async def test_a_full_log_is_read_before_its_trigger_finishes(kind: str, request: pytest.FixtureRequest) -> None:
    supervisor: Supervisor = request.getfixturevalue(kind)
    supervisor.fill()

    await log_is_read()

    with pytest.raises(BlockingIOError):
        supervisor.log.recv(1)


async def test_a_log_that_has_been_read_is_not_waited_for(found: Supervisor) -> None:
    await log_is_read()

    assert found.rounds == 1


async def test_triggers_that_finish_together_wait_together(supervisor: Supervisor) -> None:
    await log_is_read()
    alone = supervisor.rounds

    await asyncio.gather(*(log_is_read() for _ in range(100)))

    assert supervisor.rounds == 2 * alone


async def test_many_lines_leave_room_in_the_log_for_triggers_that_log_on_the_event_loop(found: Supervisor) -> None:
    found.fill()
    waits = asyncio.ensure_future(asyncio.to_thread(wait_for_room))

    done, _ = await asyncio.wait({waits}, timeout=0.1)
    assert not done
    while not waits.done():
        await found.asend(None)
    for _ in range(20):
        found.triggers.send(b"x" * 1000)


async def test_a_log_that_is_not_a_socket_is_not_waited_for() -> None:
    await asyncio.to_thread(wait_for_room)
