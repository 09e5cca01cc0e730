"""The service as a process: from the lock on its data folder to its graceful end."""

from __future__ import annotations

import fcntl
import logging
import shutil
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from urllib.parse import urlsplit

import uvicorn

from airflow_training.service.accounts.clients import Clients
from airflow_training.service.accounts.tokens import Tokens
from airflow_training.service.database.engine import postgresql
from airflow_training.service.database.lock import DatabaseLock
from airflow_training.service.database.models import open_database
from airflow_training.service.errors import ServiceNotStarted
from airflow_training.service.http.access_log import open_access_log
from airflow_training.service.http.app import create_app
from airflow_training.service.http.auth import Service
from airflow_training.service.http.prometheus import Metrics
from airflow_training.service.insights.readers import Programs
from airflow_training.service.runners.container.runner import ContainerRunner
from airflow_training.service.runners.process.cgroup import Cgroup
from airflow_training.service.runners.process.runner import ProcessRunner
from airflow_training.service.runners.ray.runner import RayRunner
from airflow_training.service.runners.runner import Runner
from airflow_training.service.scheduling.capacity import MEGABYTE, detect
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.maintenance import Housekeeping, prune
from airflow_training.service.scheduling.ray_capacity import RayMachine
from airflow_training.service.scheduling.scheduler import Scheduler
from airflow_training.service.scheduling.status_cache import Statuses
from airflow_training.service.settings import DataFolder, RaySettings, RunnerName, ServiceSettings, Tls
from airflow_training.service.storage.bucket import Buckets, buckets_of, remember_store
from airflow_training.service.storage.endpoint import Storage
from airflow_training.service.storage.sockets import is_loopback, listen, own_address, reachable, url

_logger = logging.getLogger(__name__)

# What requests that are under way may take when the service stops.
_GRACE = 2


def serve(settings: ServiceSettings, ready: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or SIGINT; jobs that run then go on, and are found again by the next start.

    Args:
        settings: What it is to do.
        ready: Is told the URL once the service answers.

    Raises:
        ServiceNotStarted: The data folder or a port is taken, a certificate or a database cannot be used.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    data = DataFolder.at(settings.data)
    if settings.tls:
        _check(settings.tls)
    with _held(data), listen(settings.host, settings.port) as listener:
        open_access_log(settings.access_log or data.access_log)
        remember_store(data, settings.s3)
        buckets = buckets_of(data)
        storage = Storage(
            data, buckets, settings.host, settings.storage_port, settings.tls, public_url=settings.storage_url
        )
        service = _service(settings, data, buckets, storage)
        own_url = url(listener, reachable(listener, "127.0.0.1"), "https" if settings.tls else "http")
        server = _Server(service, settings.tls, partial(ready, own_url))
        housekeeping = Housekeeping(_duties(settings, service, buckets))
        service.tokens.renew_keys()
        with ExitStack() as running:
            for part in (service.database_lock, storage, service.scheduler, housekeeping):
                part.start()
                running.callback(part.stop)
            server.run([listener])


def _service(settings: ServiceSettings, data: DataFolder, buckets: Buckets, storage: Storage) -> Service:
    sessions = open_database(postgresql(settings.database_url) if settings.database_url else data.database_url)
    if settings.runner is RunnerName.PROCESS and not Cgroup.available():
        _logger.warning(
            "No control group can be made here: what jobs use is looked at four times a second, and a job that grows"
            " very fast can take more than it may before it is ended."
        )
    given = (settings.cpus, settings.memory, settings.gpus)
    machine = RayMachine(settings.ray, *given) if settings.ray else detect(*given)
    jobs = JobTable(sessions, machine)
    runner = _runner(settings, data, buckets, storage)
    metrics = Metrics(jobs)
    return Service(
        data=data,
        database_lock=DatabaseLock(sessions),
        clients=Clients(sessions),
        tokens=Tokens(sessions, settings.token_lifetime),
        machine=machine,
        plans=settings.plans,
        jobs=jobs,
        statuses=Statuses(jobs, machine),
        runner=runner,
        scheduler=Scheduler(jobs, runner, machine, metrics, data=data, free_disk=settings.free_disk),
        storage=storage,
        metrics=metrics,
        programs=Programs(),
    )


def _runner(settings: ServiceSettings, data: DataFolder, buckets: Buckets, storage: Storage) -> Runner:
    disk = settings.job_disk or shutil.disk_usage(data.root).total // 2 // MEGABYTE
    log = settings.job_log * MEGABYTE
    if settings.ray:
        where = storage.url_by(_towards(settings.ray, settings))
        return RayRunner(data, buckets, disk=disk, log=log, ray=settings.ray, storage=where)
    of_machine = {RunnerName.PROCESS: ProcessRunner, RunnerName.CONTAINER: ContainerRunner}
    return of_machine[settings.runner](data, buckets, disk=disk, log=log)


def _towards(ray: RaySettings, settings: ServiceSettings) -> str:
    """The name by which the nodes of Ray reach the storage."""
    if not settings.storage_port:
        raise ServiceNotStarted(
            "Jobs on Ray come back to the storage after a restart of the service: give it a port, --storage-port 8901.",
            code="AT-544",
        )
    cluster = urlsplit(ray.address)
    own = ray.storage_host or own_address(cluster.hostname or "", cluster.port or 8265)
    if is_loopback(settings.host) and not is_loopback(own):
        raise ServiceNotStarted(
            f"Jobs on Ray at {ray.address} cannot reach the storage, which listens on {settings.host}: add --host"
            " 0.0.0.0.",
            code="AT-545",
        )
    return own


def _duties(settings: ServiceSettings, service: Service, buckets: Buckets) -> list[Callable[[], object]]:
    duties: list[Callable[[], object]] = [
        service.database_lock.keep,
        service.tokens.renew_keys,
        lambda: service.storage.keep_keys_of(service.clients.all()),
    ]
    if isinstance(service.machine, RayMachine):
        duties.append(service.machine.refresh)
    if settings.keep_days is not None:
        duties.append(partial(prune, service.jobs, service.data, buckets, settings.keep_days))
    return duties


def _check(tls: Tls) -> None:
    """Find what is wrong with a certificate before anything is started."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ssl.SSLError) as error:
        # OpenSSL's words for it are for programmers.
        no_pair = isinstance(error, ssl.SSLError)
        reason = "they do not belong together, or are not PEM without a passphrase" if no_pair else error.strerror
        raise ServiceNotStarted(
            f"The certificate {tls.certificate} with the key {tls.key} cannot be used: {reason}.", code="AT-515"
        ) from error


@contextmanager
def _held(data: DataFolder) -> Iterator[None]:
    with data.lock.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceNotStarted(
                f"The data folder {data.root} is in use by another training service: stop that one, or choose"
                " another folder.",
                code="AT-503",
            ) from None
        yield


class _Server(uvicorn.Server):
    """A server that tells when it answers, and that ends without an error when it is told to stop."""

    def __init__(self, service: Service, tls: Tls | None, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(service),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACE,
                ssl_certfile=tls.certificate if tls else None,
                ssl_keyfile=tls.key if tls else None,
            )
        )
        self._ready = ready
        self._changes = service.jobs.changes
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

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what is under way; who waits for news is told that there is none."""
        self._changes.close()
        await super().shutdown(sockets)
