"""OAuth2 clients: who may use the service, for which tenant, and what for."""

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

# A tenant is a folder's name, a client id part of an Authorization header.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# 32 random digits of hexadecimal are 128 bits, which nobody guesses; how random they are is up to who chose them.
_SECRET = re.compile(r"[!-~]{32,255}")


@dataclass(frozen=True)
class Credentials:
    """A client as it is shown once, with its secret."""

    client_id: str
    client_secret: str = field(repr=False)
    tenant: str


@dataclass(frozen=True)
class KnownClient:
    """A client as the service knows it.

    Attributes:
        client_id: Its id.
        tenant: Whose jobs and files it reaches.
        scope: What it may do with them.
        generation: Changes with its secret.
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
        # Clients that were verified: each task and each trigger asks for a token, and a slow hash takes a tenth of a
        # second of a core. Their secrets are digested with a key that ends with this process.
        self._key = secrets.token_bytes(32)
        self._verified: dict[str, bytes] = {}

    def add(
        self,
        tenant: str,
        client_id: str | None = None,
        scope: Iterable[str] = SCOPES,
        secret: str | None = None,
    ) -> Credentials:
        """Add a client; a new secret is returned here and never again.

        Args:
            tenant: Whose jobs and files it reaches.
            client_id: Its id; a random one if not given.
            scope: What it may do.
            secret: Its secret; a new one if not given. Adding the same client with the same secret once more is no
                error, so that what sets up a service may run at each start.

        Raises:
            ClientNotChanged: The id is taken, or the id, the tenant, the scope or the secret is none.
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
        added = Credentials(client_id, _secret(secret), tenant)
        row = self._hashed(added.client_secret)
        client = Client(client_id=client_id, tenant=tenant, scope=" ".join(scope), created=now(), **row)
        try:
            with self._sessions.begin() as session:
                session.add(client)
        except IntegrityError:
            if secret is None:
                raise ClientNotChanged(
                    f"The client {client_id!r} is there already: choose another id.", code="AT-564"
                ) from None
            known = self.authenticate(client_id, secret)
            if not known or (known.tenant, known.scope) != (tenant, frozenset(scope)):
                raise ClientNotChanged(
                    f"The client {client_id!r} is there already, with another secret, tenant or scope: rotate it, or"
                    " remove it first.",
                    code="AT-565",
                ) from None
        return added

    def rotate(self, client_id: str, secret: str | None = None) -> Credentials:
        """Give a client a new secret; the old one, and the tokens that were issued for it, are no good any more.

        Raises:
            ClientNotChanged: There is no such client, or the secret is none.
        """
        secret = _secret(secret)
        statement = update(Client).where(Client.client_id == client_id).values(**self._hashed(secret))
        with self._sessions.begin() as session:
            tenant = session.scalar(statement.returning(Client.tenant))
        if tenant is None:
            raise _unknown(client_id)
        return Credentials(client_id, secret, tenant)

    def remove(self, client_id: str) -> None:
        """Remove a client, with its tokens; the jobs and files of its tenant stay.

        Raises:
            ClientNotChanged: There is no such client.
        """
        with self._sessions.begin() as session:
            statement = delete(Client).where(Client.client_id == client_id).returning(Client.client_id)
            if session.scalar(statement) is None:
                raise _unknown(client_id)

    def all(self) -> list[KnownClient]:
        """The clients, by tenant and id."""
        with self._sessions() as session:
            found = session.scalars(select(Client).order_by(Client.tenant, Client.client_id)).all()
        return [_known(client) for client in found]

    def recall(self, client_id: str, secret: str) -> KnownClient | None:
        """The client, if this secret was verified before; without the slow hash."""
        client = self._find(client_id)
        if client and hmac.compare_digest(self._verified.get(client_id, b""), self._digest(client, secret)):
            return _known(client)
        return None

    def authenticate(self, client_id: str, secret: str) -> KnownClient | None:
        """The client, or None where id or secret are wrong; takes a while, as it should."""
        client = self._find(client_id)
        if client is None:
            self._verified.pop(client_id, None)
            # It takes as long to refuse as a wrong secret: nobody can find ids by the clock.
            self._hasher.hash(secret)
            return None
        try:
            self._hasher.verify(client.secret_hash, secret)
        except VerificationError:
            return None
        self._verified[client_id] = self._digest(client, secret)
        return _known(client)

    def _find(self, client_id: str) -> Client | None:
        with self._sessions() as session:
            # No id has a NUL, and PostgreSQL does not even take one to look for.
            return None if "\0" in client_id else session.get(Client, client_id)

    def _digest(self, client: Client, secret: str) -> bytes:
        # What is stored is part of it: with a new secret, it is another client.
        return hmac.digest(self._key, f"{client.secret_hash} {secret}".encode(), "sha256")

    def current(self, client_id: str, generation: str) -> KnownClient | None:
        """The client that something was issued to; None where it has been removed or has another secret now."""
        with self._sessions() as session:
            client = session.get(Client, client_id)
        return _known(client) if client and client.generation == generation else None

    def _hashed(self, secret: str) -> dict[str, str]:
        return {"secret_hash": self._hasher.hash(secret), "generation": secrets.token_hex(8)}


def _known(client: Client) -> KnownClient:
    scope = frozenset(client.scope.split())
    return KnownClient(client.client_id, client.tenant, scope, client.generation, client.created)


def _secret(given: str | None) -> str:
    if given is None:
        return secrets.token_urlsafe(32)
    if not _SECRET.fullmatch(given):
        raise ClientNotChanged("A client secret has 32 to 255 characters of ASCII, and no spaces.", code="AT-563")
    return given


def _unknown(client_id: str) -> ClientNotChanged:
    return ClientNotChanged(
        f"There is no client {client_id!r}: `airflow-training clients list` shows those there are.", code="AT-566"
    )
