"""The service as a process: from the lock on its data folder to its graceful end."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import uvicorn

from airflow_training.service.app import create_app
from airflow_training.service.clients import Clients
from airflow_training.service.context import Service
from airflow_training.service.database import open_database
from airflow_training.service.errors import ServiceNotStarted
from airflow_training.service.job_table import JobTable
from airflow_training.service.network import listen, reachable, url
from airflow_training.service.runners.process import ProcessRunner
from airflow_training.service.scheduler import Scheduler
from airflow_training.service.settings import DataFolder, ServiceSettings
from airflow_training.service.storage import Storage
from airflow_training.service.tokens import Tokens, signing_key

# What requests that are under way may take when the service stops.
_GRACE = 2


def serve(settings: ServiceSettings, ready: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or SIGINT; jobs that run then go on, and are found again by the next start.

    Args:
        settings: What it is to do.
        ready: Is told the URL once the service answers.

    Raises:
        ServiceNotStarted: The data folder or a port is taken.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    data = DataFolder.at(settings.data)
    with _held(data), listen(settings.host, settings.port) as listener:
        storage = Storage(data, settings.host, settings.storage_port)
        service = _service(settings, data, storage)
        own_url = url(listener, reachable(listener, "127.0.0.1"))
        server = _Server(service, partial(ready, own_url))
        storage.start()
        service.scheduler.start()
        try:
            server.run([listener])
        finally:
            service.scheduler.stop()
            storage.stop()


def _service(settings: ServiceSettings, data: DataFolder, storage: Storage) -> Service:
    sessions = open_database(f"sqlite:///{data.database}")
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    jobs = JobTable(sessions, cpus)
    return Service(
        data=data,
        clients=Clients(sessions),
        tokens=Tokens(signing_key(data.signing_key), settings.token_lifetime),
        jobs=jobs,
        scheduler=Scheduler(jobs, ProcessRunner(data), cpus),
        storage=storage,
    )


@contextmanager
def _held(data: DataFolder) -> Iterator[None]:
    with data.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceNotStarted(
                f"The data folder {data.root} is in use by another training service: stop that one, or choose"
                " another folder."
            ) from None
        yield


class _Server(uvicorn.Server):
    """A server that tells when it answers, and that ends without an error when it is told to stop."""

    def __init__(self, service: Service, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(service),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
            )
        )
        self._ready = ready
        # uvicorn raises the signal that stopped it once more when it is done, for whoever was there before it.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to answer, and say so."""
        await super().startup(sockets)
        if self.started:
            self._ready()
