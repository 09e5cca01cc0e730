"""Whether a server listens yet."""

from __future__ import annotations

import socket


def listens(address: str | tuple[str, int]) -> bool:
    """Whether somebody listens at a path, or at a host and a port."""
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family) as connection:
        return connection.connect_ex(address) == 0
