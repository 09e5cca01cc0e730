"""The listening sockets of the service, and their addresses."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from airflow_training.service.errors import ServiceNotStarted

_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes a free port.

    Raises:
        ServiceNotStarted: The port is taken, or the address is not one of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            # A port in TIME_WAIT is free.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except socket.gaierror as error:
        raise ServiceNotStarted(
            f"{host!r} is not an address of this machine: choose another, such as 127.0.0.1.", code="AT-511"
        ) from error
    except OSError as error:
        raise ServiceNotStarted(
            f"The service cannot listen on {host} port {port} ({error.strerror}): stop what uses the port, or choose"
            " another, 0 for any that is free.",
            code="AT-512",
        ) from error
    return listener


def socket_url(listener: socket.socket, host: str, scheme: str) -> str:
    """The URL of a socket with a host name or address; without a scheme if that is empty."""
    name = f"[{host}]" if ":" in host else host
    return f"{scheme}{'://' if scheme else ''}{name}:{listener.getsockname()[1]}"


def local_address(remote: str, port: int) -> str:
    """The address of this machine in its connections to a remote host, which may be down.

    Raises:
        ServiceNotStarted: The name of the host cannot be resolved.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(remote, port, type=socket.SOCK_DGRAM)[0]
        # Nothing is sent: the kernel only chooses the route of a datagram.
        with socket.socket(family, kind, protocol) as route:
            route.connect(address)
            own: str = route.getsockname()[0]
            return own
    except OSError as error:
        raise ServiceNotStarted(
            f"{remote} cannot be resolved or reached ({error.strerror}): use another name or an IP address.",
            code="AT-513",
        ) from error


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine only; False for a name that cannot be resolved."""
    try:
        return ip_address(socket.getaddrinfo(host, None)[0][4][0]).is_loopback
    except socket.gaierror:
        return False


def reachable_host(listener: socket.socket, used: str) -> str:
    """The host for a client that reached the service by `used`: the socket's address, or `used` if that is 0.0.0.0."""
    own: str = listener.getsockname()[0]
    return used if ip_address(own).is_unspecified else own
