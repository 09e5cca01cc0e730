"""Access tokens: signed, expiring, naming the client they were issued to and what it may do.

Source: RFC 7519 (the claims), RFC 9068 (`scope`, `client_id`). The keys lie in the database, so that several processes
share them, and are replaced before they are old.
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

from airflow_training.service.accounts.clients import KnownClient
from airflow_training.service.database.models import SigningKey, now

_ALGORITHM = "HS256"
_CLAIMS = ("client_id", "tenant", "scope", "generation", "iat", "exp")

_KEY_AGE = timedelta(days=30)
"""A key signs for so long; it is read for as long as a token that it signed may live."""

# Keys that another process has revoked are good for this many seconds at most.
_REMEMBERED = 5.0


@dataclass(frozen=True)
class Claims:
    """What a token says of who holds it."""

    client_id: str
    generation: str
    scope: frozenset[str]


class Tokens:
    """Issues access tokens and reads them.

    Args:
        sessions: The database.
        lifetime: Seconds that a token is good for.
    """

    def __init__(self, sessions: sessionmaker[Session], lifetime: int) -> None:
        self._sessions = sessions
        self.lifetime = lifetime
        self._keys: dict[str, str] = {}
        self._read_again = 0.0

    def issue(self, client: KnownClient, scope: frozenset[str]) -> str:
        """Make a token for a client."""
        keys = self._known_keys()
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
        """What a token says; None where it is not ours or has expired."""
        try:
            key = self._known_keys()[str(jwt.get_unverified_header(token).get("kid"))]
            claims = jwt.decode(token, key, algorithms=[_ALGORITHM], options={"require": list(_CLAIMS)})
        except (jwt.InvalidTokenError, KeyError):
            return None
        return Claims(str(claims["client_id"]), str(claims["generation"]), frozenset(str(claims["scope"]).split()))

    def rotate(self, *, revoke: bool = False) -> None:
        """Sign with a new key from now on.

        Args:
            revoke: Forget the other keys: every token that was issued so far is no good any more.
        """
        with self._sessions.begin() as session:
            if revoke:
                session.execute(delete(SigningKey))
            session.add(_new_key())
        self._read_again = 0.0

    def renew_keys(self) -> None:
        """Replace a key that is old, and forget those whose tokens have all expired."""
        with self._sessions.begin() as session:
            expired = now() - _KEY_AGE - timedelta(seconds=self.lifetime)
            young = session.scalar(select(SigningKey.id).where(SigningKey.created > now() - _KEY_AGE).limit(1))
            if young is None:
                session.add(_new_key())
                self._read_again = 0.0
            session.execute(delete(SigningKey).where(SigningKey.created < expired))

    def _known_keys(self) -> dict[str, str]:
        """The keys by their ids, the newest first."""
        if time.monotonic() >= self._read_again:
            with self._sessions() as session:
                keys = session.scalars(select(SigningKey).order_by(SigningKey.created.desc(), SigningKey.id)).all()
            self._keys = {key.id: key.key for key in keys}
            self._read_again = time.monotonic() + _REMEMBERED
        return self._keys


def _new_key() -> SigningKey:
    return SigningKey(id=secrets.token_hex(8), key=secrets.token_urlsafe(48), created=now())
