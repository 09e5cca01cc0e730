"""OAuth2 clients: their tenant, their scopes and their hashed secrets."""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from airflow_training.service.database.models import Client, now
from airflow_training.service.errors import ClientNotChanged

READ = "jobs:read"
WRITE = "jobs:write"
SCOPES = {
    READ: "list jobs, read their status and their logs",
    WRITE: "submit and cancel jobs, use the storage",
}

# A tenant is the name of a folder, a client id is part of an Authorization header.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# 32 random hexadecimal digits are 128 bits, which cannot be guessed.
_SECRET = re.compile(r"[!-~]{32,255}")


@dataclass(frozen=True)
class IssuedCredentials:
    """A client with its secret, which is shown only once."""

    client_id: str
    client_secret: str = field(repr=False)
    tenant: str


@dataclass(frozen=True)
class RegisteredClient:
    """A client in the database.

    Attributes:
        client_id: Its id.
        tenant: The tenant whose jobs and files it can access.
        scope: Its scopes.
        generation: Identifies its secret: tokens of an earlier secret have another one.
        created: When it was added.
    """

    client_id: str
    tenant: str
    scope: frozenset[str]
    generation: str
    created: datetime


class Clients:
    """The OAuth2 clients in the database."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._hasher = PasswordHasher()
        # A cache, since each task and each trigger requests a token, and the slow hash takes a tenth of a second of a
        # core. The digests are keyed with a key of this process.
        self._key = secrets.token_bytes(32)
        self._verified_digests: dict[str, bytes] = {}

    def add(
        self,
        tenant: str,
        client_id: str | None = None,
        scope: Iterable[str] = SCOPES,
        secret: str | None = None,
    ) -> IssuedCredentials:
        """Add a client. Only this reply has a generated secret.

        Args:
            tenant: The tenant whose jobs and files it can access.
            client_id: Its id; random if None.
            scope: Its scopes.
            secret: Its secret; generated if None. Adding the same client with the same secret again is not an error:
                a setup script can run at each start.

        Raises:
            ClientNotChanged: The id is taken, or the id, the tenant, a scope or the secret is not valid.
        """
        client_id = secrets.token_hex(8) if client_id is None else client_id
        for what, name in (("client id", client_id), ("tenant", tenant)):
            if not _NAME.fullmatch(name):
                raise ClientNotChanged(
                    f"The {what} must be 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first,"
                    f" not {name!r}.",
                    code="AT-561",
                )
        scope = sorted(set(scope))
        if unknown := [name for name in scope if name not in SCOPES]:
            raise ClientNotChanged(
                f"There is no scope {unknown[0]!r}: choose from {' and '.join(SCOPES)}.", code="AT-562"
            )
        added = IssuedCredentials(client_id, _check_or_generate(secret), tenant)
        row = self._hashed(added.client_secret)
        client = Client(client_id=client_id, tenant=tenant, scope=" ".join(scope), created=now(), **row)
        try:
            with self._sessions.begin() as session:
                session.add(client)
        except IntegrityError:
            if secret is None:
                raise ClientNotChanged(
                    f"The client {client_id!r} exists already: choose another id.", code="AT-564"
                ) from None
            existing = self.authenticate(client_id, secret)
            if not existing or (existing.tenant, existing.scope) != (tenant, frozenset(scope)):
                raise ClientNotChanged(
                    f"The client {client_id!r} exists already, with another secret, tenant or scope: rotate its secret,"
                    " or remove it first.",
                    code="AT-565",
                ) from None
        return added

    def rotate(self, client_id: str, secret: str | None = None) -> IssuedCredentials:
        """Replace the secret of a client; the old secret and its tokens become invalid.

        Raises:
            ClientNotChanged: There is no such client, or the secret is not valid.
        """
        secret = _check_or_generate(secret)
        statement = update(Client).where(Client.client_id == client_id).values(**self._hashed(secret))
        with self._sessions.begin() as session:
            tenant = session.scalar(statement.returning(Client.tenant))
        if tenant is None:
            raise _no_client(client_id)
        return IssuedCredentials(client_id, secret, tenant)

    def remove(self, client_id: str) -> None:
        """Remove a client, with its tokens; the jobs and files of its tenant stay.

        Raises:
            ClientNotChanged: There is no such client.
        """
        with self._sessions.begin() as session:
            statement = delete(Client).where(Client.client_id == client_id).returning(Client.client_id)
            if session.scalar(statement) is None:
                raise _no_client(client_id)

    def all(self) -> list[RegisteredClient]:
        """All clients, ordered by tenant and id."""
        with self._sessions() as session:
            found = session.scalars(select(Client).order_by(Client.tenant, Client.client_id)).all()
        return [_registered(client) for client in found]

    def authenticate_cached(self, client_id: str, secret: str) -> RegisteredClient | None:
        """The client if this process has verified the secret before, without the slow hash."""
        client = self._find(client_id)
        if client and hmac.compare_digest(self._verified_digests.get(client_id, b""), self._digest(client, secret)):
            return _registered(client)
        return None

    def authenticate(self, client_id: str, secret: str) -> RegisteredClient | None:
        """The client, or None if the id or the secret is wrong; deliberately slow."""
        client = self._find(client_id)
        if client is None:
            self._verified_digests.pop(client_id, None)
            # As slow as a wrong secret: the response time must not reveal which ids exist.
            self._hasher.hash(secret)
            return None
        try:
            self._hasher.verify(client.secret_hash, secret)
        except VerificationError:
            return None
        self._verified_digests[client_id] = self._digest(client, secret)
        return _registered(client)

    def _find(self, client_id: str) -> Client | None:
        with self._sessions() as session:
            # PostgreSQL does not accept a NUL, even to search for it.
            return None if "\0" in client_id else session.get(Client, client_id)

    def _digest(self, client: Client, secret: str) -> bytes:
        # Including the stored hash invalidates the entry when the secret is rotated.
        return hmac.digest(self._key, f"{client.secret_hash} {secret}".encode(), "sha256")

    def current(self, client_id: str, generation: str) -> RegisteredClient | None:
        """The client that a token was issued to; None if it has been removed or has another secret now."""
        with self._sessions() as session:
            client = session.get(Client, client_id)
        return _registered(client) if client and client.generation == generation else None

    def _hashed(self, secret: str) -> dict[str, str]:
        return {"secret_hash": self._hasher.hash(secret), "generation": secrets.token_hex(8)}


def _registered(client: Client) -> RegisteredClient:
    scope = frozenset(client.scope.split())
    return RegisteredClient(client.client_id, client.tenant, scope, client.generation, client.created)


def _check_or_generate(secret: str | None) -> str:
    if secret is None:
        return secrets.token_urlsafe(32)
    if not _SECRET.fullmatch(secret):
        raise ClientNotChanged("A client secret must have 32 to 255 ASCII characters and no spaces.", code="AT-563")
    return secret


def _no_client(client_id: str) -> ClientNotChanged:
    return ClientNotChanged(
        f"There is no client {client_id!r}: `airflow-training clients list` shows all clients.", code="AT-566"
    )
