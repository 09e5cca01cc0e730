"""Access tokens: signed, expiring, and naming the tenant they are for."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from uuid import uuid4

import jwt

from airflow_training.service.files import write_atomic

_ALGORITHM = "HS256"


class Tokens:
    """Issues access tokens and reads them.

    Args:
        key: What they are signed with.
        lifetime: Seconds that a token is good for.
    """

    def __init__(self, key: str, lifetime: int) -> None:
        self._key = key
        self.lifetime = lifetime

    def issue(self, client_id: str, tenant: str) -> str:
        """Make a token for a client."""
        issued = int(time.time())
        claims = {
            "sub": client_id,
            "tenant": tenant,
            "iat": issued,
            "exp": issued + self.lifetime,
            "jti": uuid4().hex,
        }
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def tenant_of(self, token: str) -> str | None:
        """The tenant that a token is for; None where it is not ours or has expired."""
        try:
            claims = jwt.decode(
                token, self._key, algorithms=[_ALGORITHM], options={"require": ["sub", "tenant", "iat", "exp"]}
            )
        except jwt.InvalidTokenError:
            return None
        return str(claims["tenant"])


def signing_key(path: Path) -> str:
    """Read the key; the first service on a data folder makes it."""
    if not path.exists():
        write_atomic(path, secrets.token_urlsafe(48).encode())
    return path.read_text()
