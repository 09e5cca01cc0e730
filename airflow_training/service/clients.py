"""OAuth2 clients: who may use the service, and for which tenant."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass, field

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from airflow_training.service.database import Client, now
from airflow_training.service.errors import ClientNotAdded

# A tenant is a folder's name, a client id part of an Authorization header.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True)
class Credentials:
    """A client as it is shown once, with its secret."""

    client_id: str
    client_secret: str = field(repr=False)
    tenant: str


class Clients:
    """The OAuth2 clients in the database."""

    def __init__(self, sessions: sessionmaker[Session]) -> None:
        self._sessions = sessions
        self._hasher = PasswordHasher()
        # An unknown client takes as long to refuse as a wrong secret: nobody can find ids by the clock.
        self._nobodys_hash = self._hasher.hash(secrets.token_urlsafe())

    def add(self, tenant: str, client_id: str | None = None) -> Credentials:
        """Add a client; the secret is returned here and never again.

        Raises:
            ClientNotAdded: The id is taken, or the id or the tenant is not a name.
        """
        client_id = secrets.token_hex(8) if client_id is None else client_id
        for what, name in (("client id", client_id), ("tenant", tenant)):
            if not _NAME.fullmatch(name):
                raise ClientNotAdded(
                    f"The {what} must be 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first,"
                    f" not {name!r}."
                )
        secret = secrets.token_urlsafe(32)
        client = Client(client_id=client_id, secret_hash=self._hasher.hash(secret), tenant=tenant, created=now())
        try:
            with self._sessions.begin() as session:
                session.add(client)
        except IntegrityError:
            raise ClientNotAdded(f"The client {client_id!r} is there already: choose another id.") from None
        return Credentials(client_id, secret, tenant)

    def tenant_of(self, client_id: str, secret: str) -> str | None:
        """The tenant of a client, or None where id or secret are wrong; takes a while, as it should."""
        with self._sessions() as session:
            client = session.get(Client, client_id)
        try:
            self._hasher.verify(client.secret_hash if client else self._nobodys_hash, secret)
        except VerificationError:
            return None
        return client.tenant if client else None
