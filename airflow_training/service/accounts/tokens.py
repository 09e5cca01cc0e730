"""Access tokens: signed JWTs with the client and its scopes, and the rotation of their signing keys.

Source: RFC 7519 (the claims), RFC 9068 (`scope`, `client_id`). The keys are in the database: the service and its
commands share them.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import jwt
from sqlalchemy import delete, select
from sqlalchemy.orm import Session, sessionmaker

from airflow_training.service.accounts.clients import RegisteredClient
from airflow_training.service.database.models import SigningKey, now

_ALGORITHM = "HS256"
_CLAIMS = ("client_id", "tenant", "scope", "generation", "iat", "exp")

_KEY_AGE = timedelta(days=30)
"""A key signs tokens for this long; it verifies them until the last one has expired."""

# Seconds until a key that another process has revoked becomes invalid here.
_CACHE_SECONDS = 5.0


@dataclass(frozen=True)
class Claims:
    """The verified content of a token."""

    client_id: str
    generation: str
    scope: frozenset[str]


class Tokens:
    """Issues and verifies access tokens.

    Args:
        sessions: The database.
        lifetime: Seconds that a token is valid.
    """

    def __init__(self, sessions: sessionmaker[Session], lifetime: int) -> None:
        self._sessions = sessions
        self.lifetime = lifetime
        self._keys: dict[str, str] = {}
        self._cache_expires = 0.0

    def issue(self, client: RegisteredClient, scope: frozenset[str]) -> str:
        """Issue a token to a client."""
        keys = self._cached_keys()
        newest = next(iter(keys))
        issued = int(time.time())
        claims = {
            "sub": client.client_id,
            "client_id": client.client_id,
            "tenant": client.tenant,
            "scope": " ".join(sorted(scope)),
            "generation": client.generation,
            "iat": issued,
            "exp": issued + self.lifetime,
            "jti": uuid4().hex,
        }
        return jwt.encode(claims, keys[newest], algorithm=_ALGORITHM, headers={"kid": newest})

    def read(self, token: str) -> Claims | None:
        """Verify a token; None if it was not issued here, has expired or was revoked."""
        try:
            key = self._cached_keys()[str(jwt.get_unverified_header(token).get("kid"))]
            claims = jwt.decode(token, key, algorithms=[_ALGORITHM], options={"require": list(_CLAIMS)})
        except (jwt.InvalidTokenError, KeyError):
            return None
        return Claims(str(claims["client_id"]), str(claims["generation"]), frozenset(str(claims["scope"]).split()))

    def rotate(self, *, revoke: bool = False) -> None:
        """Sign with a new key.

        Args:
            revoke: Delete the other keys, which revokes all tokens issued so far.
        """
        with self._sessions.begin() as session:
            if revoke:
                session.execute(delete(SigningKey))
            session.add(_new_key())
        self._cache_expires = 0.0

    def renew_keys(self) -> None:
        """Replace the signing key if it is old, and delete the keys whose tokens have all expired."""
        with self._sessions.begin() as session:
            expired = now() - _KEY_AGE - timedelta(seconds=self.lifetime)
            young = session.scalar(select(SigningKey.id).where(SigningKey.created > now() - _KEY_AGE).limit(1))
            if young is None:
                session.add(_new_key())
                self._cache_expires = 0.0
            session.execute(delete(SigningKey).where(SigningKey.created < expired))

    def _cached_keys(self) -> dict[str, str]:
        """The keys by id, the newest first; cached for some seconds."""
        if time.monotonic() >= self._cache_expires:
            with self._sessions() as session:
                keys = session.scalars(select(SigningKey).order_by(SigningKey.created.desc(), SigningKey.id)).all()
            self._keys = {key.id: key.key for key in keys}
            self._cache_expires = time.monotonic() + _CACHE_SECONDS
        return self._keys


def _new_key() -> SigningKey:
    return SigningKey(id=secrets.token_hex(8), key=secrets.token_urlsafe(48), created=now())
