"""The end of a log, where the triggerer is far behind: a fake, since no fault of a machine makes it so each time."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from airflow.sdk.execution_time import task_runner

from airflow_training.triggers.log_delivery import log_is_read


class Supervisor:
    """Reads a piece of a full log socket in each of its rounds, as Airflow's does, and answers one request."""

    def __init__(self) -> None:
        self.log, self._triggers = socket.socketpair()
        self._triggers.setblocking(False)
        self.log.setblocking(False)
        self.rounds = 0

    def fill(self) -> None:
        with suppress(BlockingIOError):
            while True:
                self._triggers.send(b"x" * 1000)

    async def asend(self, _: object) -> None:
        await asyncio.sleep(0)
        self.rounds += 1
        with suppress(BlockingIOError):
            self.log.recv(4096)

    def close(self) -> None:
        self.log.close()
        self._triggers.close()


@pytest.fixture
def supervisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    supervisor = Supervisor()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", supervisor, raising=False)
    yield supervisor
    supervisor.close()


@pytest.mark.anyio
async def test_a_full_log_is_read_before_its_trigger_finishes(supervisor: Supervisor) -> None:
    supervisor.fill()

    await log_is_read()

    with pytest.raises(BlockingIOError):
        supervisor.log.recv(1)


@pytest.mark.anyio
async def test_triggers_that_finish_together_wait_together(supervisor: Supervisor) -> None:
    await log_is_read()
    alone = supervisor.rounds

    await asyncio.gather(*(log_is_read() for _ in range(100)))

    assert supervisor.rounds == 2 * alone
