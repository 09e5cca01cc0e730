"""The process of the service: builds its parts, starts them, and serves until it is stopped."""

from __future__ import annotations

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
from airflow_training.service.atomic_files import try_lock_file
from airflow_training.service.database.engine import postgresql_url
from airflow_training.service.database.lock import DatabaseLock
from airflow_training.service.database.models import open_database
from airflow_training.service.errors import ServiceNotStarted
from airflow_training.service.http.access_log import open_access_log
from airflow_training.service.http.app import create_app
from airflow_training.service.http.auth import ServiceParts
from airflow_training.service.http.prometheus import ServiceMetrics
from airflow_training.service.insights.readers import ReaderPrograms
from airflow_training.service.reruns import Reruns
from airflow_training.service.runners.container.runner import ContainerRunner
from airflow_training.service.runners.process.cgroup import Cgroup
from airflow_training.service.runners.process.runner import ProcessRunner
from airflow_training.service.runners.ray.runner import RayRunner
from airflow_training.service.scheduling.capacity import MEGABYTE, RayCapacity, detect
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.maintenance import PeriodicMaintenance, prune
from airflow_training.service.scheduling.scheduler import Runner, Scheduler
from airflow_training.service.scheduling.status_cache import StatusCache
from airflow_training.service.settings import DataFolder, RaySettings, ServiceSettings, Tls
from airflow_training.service.storage.bucket import Buckets, open_buckets, save_store
from airflow_training.service.storage.endpoint import StorageEndpoint
from airflow_training.service.storage.sockets import is_loopback, listen, local_address, reachable_host, socket_url

_logger = logging.getLogger(__name__)

# Seconds for requests in progress when the service stops.
_GRACEFUL_SHUTDOWN = 2


def serve(settings: ServiceSettings, ready: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or SIGINT; running jobs continue, and the next start finds them.

    Args:
        settings: The settings.
        ready: Called with the URL once the service answers requests.

    Raises:
        ServiceNotStarted: The data folder or a port is taken, a certificate or a database cannot be used.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    data = DataFolder.at(settings.data)
    if settings.tls:
        _check_certificate(settings.tls)
    with _locked(data), listen(settings.host, settings.port) as listener:
        open_access_log(settings.access_log or data.access_log)
        save_store(data, settings.s3)
        buckets = open_buckets(data)
        storage = StorageEndpoint(
            data, buckets, settings.host, settings.storage_port, settings.tls, public_url=settings.storage_url
        )
        service = _service(settings, data, buckets, storage)
        own_url = socket_url(listener, reachable_host(listener, "127.0.0.1"), "https" if settings.tls else "http")
        server = _Server(service, settings.tls, partial(ready, own_url))
        maintenance = PeriodicMaintenance(_maintenance_tasks(settings, service, buckets))
        service.tokens.renew_keys()
        with ExitStack() as running:
            for part in (service.database_lock, storage, service.scheduler, maintenance):
                part.start()
                running.callback(part.stop)
            server.run([listener])


def _service(settings: ServiceSettings, data: DataFolder, buckets: Buckets, storage: StorageEndpoint) -> ServiceParts:
    sessions = open_database(postgresql_url(settings.database_url) if settings.database_url else data.database_url)
    if settings.runner == "process" and not Cgroup.available():
        _logger.warning(
            "No control group can be created here: the usage of jobs is measured four times a second, and a job that"
            " grows very fast can exceed its limit before it is killed."
        )
    configured = (settings.cpus, settings.memory, settings.gpus)
    capacity = RayCapacity(settings.ray, *configured) if settings.ray else detect(*configured)
    jobs = JobTable(sessions, capacity)
    runner = _runner(settings, data, buckets, storage)
    metrics = ServiceMetrics(jobs)
    scheduler = Scheduler(jobs, runner, capacity, metrics, data=data, free_disk=settings.free_disk)
    return ServiceParts(
        data=data,
        database_lock=DatabaseLock(sessions),
        clients=Clients(sessions),
        tokens=Tokens(sessions, settings.token_lifetime),
        capacity=capacity,
        plans=settings.plans,
        jobs=jobs,
        statuses=StatusCache(jobs, capacity),
        runner=runner,
        scheduler=scheduler,
        storage=storage,
        metrics=metrics,
        programs=ReaderPrograms(),
        reruns=Reruns(data, buckets, jobs, scheduler, free_disk=settings.free_disk),
    )


def _runner(settings: ServiceSettings, data: DataFolder, buckets: Buckets, storage: StorageEndpoint) -> Runner:
    disk = settings.job_disk or shutil.disk_usage(data.root).total // 2 // MEGABYTE
    log = settings.job_log * MEGABYTE
    if settings.ray:
        storage_url = storage.url_for(_storage_host(settings.ray, settings))
        return RayRunner(data, buckets, disk=disk, log=log, ray=settings.ray, storage=storage_url)
    local_runner = ContainerRunner if settings.runner == "container" else ProcessRunner
    return local_runner(data, buckets, disk=disk, log=log)


def _storage_host(ray: RaySettings, settings: ServiceSettings) -> str:
    """The host by which the nodes of Ray reach the storage."""
    if not settings.storage_port:
        raise ServiceNotStarted(
            "Jobs on Ray need the storage at the same port after a restart of the service: add --storage-port 8901.",
            code="AT-544",
        )
    cluster = urlsplit(ray.address)
    own = ray.storage_host or local_address(cluster.hostname or "", cluster.port or 8265)
    if is_loopback(settings.host) and not is_loopback(own):
        raise ServiceNotStarted(
            f"Jobs on Ray at {ray.address} cannot reach the storage, which listens on {settings.host}: add --host"
            " 0.0.0.0.",
            code="AT-545",
        )
    return own


def _maintenance_tasks(
    settings: ServiceSettings, service: ServiceParts, buckets: Buckets
) -> list[Callable[[], object]]:
    tasks: list[Callable[[], object]] = [
        service.database_lock.ensure_held,
        service.tokens.renew_keys,
        lambda: service.storage.revoke_keys_except(service.clients.all()),
    ]
    if isinstance(service.capacity, RayCapacity):
        tasks.append(service.capacity.refresh)
    if settings.keep_days is not None:
        tasks.append(partial(prune, service.jobs, service.data, buckets, settings.keep_days))
    return tasks


def _check_certificate(tls: Tls) -> None:
    """Raise ServiceNotStarted if the certificate cannot be used."""
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.certificate, tls.key, password="")
    except (OSError, ssl.SSLError) as error:
        # The messages of OpenSSL are for programmers.
        no_pair = isinstance(error, ssl.SSLError)
        reason = "they do not match, or are not PEM files without a passphrase" if no_pair else error.strerror
        raise ServiceNotStarted(
            f"The certificate {tls.certificate} with the key {tls.key} cannot be used: {reason}.", code="AT-515"
        ) from error


@contextmanager
def _locked(data: DataFolder) -> Iterator[None]:
    with try_lock_file(data.lock) as free:
        if not free:
            raise ServiceNotStarted(
                f"The data folder {data.root} is in use by another training service: stop that one, or choose"
                " another folder.",
                code="AT-503",
            )
        yield


class _Server(uvicorn.Server):
    """A server with a callback for its start, whose exit status is 0 after SIGTERM and SIGINT."""

    def __init__(self, service: ServiceParts, tls: Tls | None, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(service),
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN,
                ssl_certfile=tls.certificate if tls else None,
                ssl_keyfile=tls.key if tls else None,
            )
        )
        self._ready = ready
        self._changes = service.jobs.changes
        # After its shutdown, uvicorn raises the signal again for the handlers that were installed before its own.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)

    def _stop(self, *_: object) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving, then call `ready`."""
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish the requests in progress; long polls are answered without an event."""
        self._changes.close()
        await super().shutdown(sockets)
