"""Sockets that the service listens on."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from airflow_training.service.errors import ServiceNotStarted

_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Open a socket to listen on; port 0 takes a free one.

    Raises:
        ServiceNotStarted: The port is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A port in the pause that TCP makes after a connection's end is not taken.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except socket.gaierror as error:
        raise ServiceNotStarted(
            f"{host!r} is no address of this machine: choose another, such as 127.0.0.1.", code="AT-511"
        ) from error
    except OSError as error:
        raise ServiceNotStarted(
            f"The service cannot listen on {host} port {port} ({error.strerror}): stop what uses the port, or choose"
            " another, 0 for any that is free.",
            code="AT-512",
        ) from error
    return listener


def url(listener: socket.socket, host: str, scheme: str) -> str:
    """The URL at which a socket is reached, by a given name or address; without its scheme if that is empty."""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}{'://' if scheme else ''}{name}:{listener.getsockname()[1]}"


def own_address(towards: str, port: int) -> str:
    """The address of this machine that another one sees, which need not be there yet.

    Raises:
        ServiceNotStarted: No such machine is known.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(towards, port, type=socket.SOCK_DGRAM)[0]
        # Nothing is sent: the kernel chooses the way that a datagram would take.
        with socket.socket(family, kind, protocol) as way:
            way.connect(address)
            own: str = way.getsockname()[0]
            return own
    except OSError as error:
        raise ServiceNotStarted(
            f"{towards} is not known on this network ({error.strerror}): name it otherwise.", code="AT-513"
        ) from error


def is_loopback(host: str) -> bool:
    """Whether only this machine itself reaches an address; a name that is unknown here may be known elsewhere."""
    try:
        return ip_address(socket.getaddrinfo(host, None)[0][4][0]).is_loopback
    except socket.gaierror:
        return False


def reachable(listener: socket.socket, by: str) -> str:
    """The name to tell to a client that came in under the name `by`: where all addresses are listened on, just that."""
    own: str = listener.getsockname()[0]
    return by if ip_address(own).is_unspecified else own
