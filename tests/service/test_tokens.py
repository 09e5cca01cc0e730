"""Access tokens, and what the API does without one."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import httpx
import jwt
import pytest
from argon2 import PasswordHasher
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from airflow_training.service.accounts.clients import Clients, RegisteredClient
from airflow_training.service.accounts.tokens import Claims, Tokens
from airflow_training.service.database.models import SigningKey, now, open_database
from tests.patience import wait_for
from tests.service.support import RunningService, Tenant, close, on_both

GRANT = {"grant_type": "client_credentials"}


@pytest.mark.parametrize("form", ["get", "post with basic", "post with the form"])
def test_every_form_of_token_request_works(tenant: Tenant, form: str) -> None:
    service, client = tenant.service, tenant.credentials
    url, basic = f"{service.url}/oauth/token", (client.client_id, client.client_secret)
    if form == "get":
        reply = httpx.get(url, params=GRANT, auth=basic)
    elif form == "post with basic":
        reply = httpx.post(url, data=GRANT | {"client_id": client.client_id}, auth=basic)
    else:
        reply = httpx.post(url, data=GRANT | {"client_id": client.client_id, "client_secret": client.client_secret})
    assert reply.status_code == 200, reply.text
    assert reply.headers["Cache-Control"] == "no-store"
    token = reply.json()
    assert (token["token_type"], token["expires_in"]) == ("bearer", 12 * 60 * 60)
    claims = jwt.decode(token["access_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["tenant"]) == (client.client_id, tenant.name)
    assert claims["exp"] - claims["iat"] == 12 * 60 * 60
    jobs = httpx.get(f"{service.url}/api/v2/jobs", headers={"Authorization": f"Bearer {token['access_token']}"})
    assert jobs.status_code == 200


@pytest.mark.parametrize("secret", ["k3y+with%2Band/slash=0123456789abcdef", "%+%zz%%41&a=b;c:d?e#f'g\"0123456789"])
@pytest.mark.parametrize("form", ["as it is", "encoded", "by GET", "in the form"])
def test_a_secret_with_any_character_is_understood_in_every_form(
    tenant: Tenant, sessions: sessionmaker[Session], secret: str, form: str
) -> None:
    client = Clients(sessions).add(tenant.name, f"chosen-{secrets.token_hex(4)}", secret=secret).client_id
    url = f"{tenant.service.url}/oauth/token"
    if form == "by GET":
        reply = httpx.get(url, params=GRANT, auth=(client, secret))
    elif form == "in the form":
        reply = httpx.post(url, data=GRANT | {"client_id": client, "client_secret": secret})
    else:
        sent = quote_plus(secret) if form == "encoded" else secret
        reply = httpx.post(url, data=GRANT | {"client_id": client}, auth=(client, sent))

    assert reply.status_code == 200, reply.text


@pytest.fixture
def sessions(service: RunningService) -> Iterator[sessionmaker[Session]]:
    """The database of the service."""
    sessions = open_database(service.database_url)
    yield sessions
    close(sessions())


@on_both
@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        ({"data": GRANT, "auth": ("nobody", "x")}, 401, "invalid_client"),
        ({"data": GRANT}, 401, "invalid_client"),
        ({"data": GRANT | {"client_id": "nobody", "client_secret": "x"}}, 401, "invalid_client"),
        ({"data": GRANT | {"client_id": "no\0body", "client_secret": "x"}}, 401, "invalid_client"),
        ({"data": GRANT, "headers": {"Authorization": "Basic ?"}}, 401, "invalid_client"),
        ({"data": GRANT, "headers": {"Authorization": b"Basic \xe9"}}, 401, "invalid_client"),
        ({"data": GRANT, "headers": {"Authorization": "Bearer x"}}, 401, "invalid_client"),
        ({"auth": ("nobody", "x")}, 400, "invalid_request"),
        ({"data": GRANT | {"client_secret": "x"}, "auth": ("nobody", "x")}, 400, "invalid_request"),
        ({"data": GRANT | {"client_id": "bob"}, "auth": ("alice", "x")}, 400, "invalid_request"),
        ({"content": b"grant_type=a&grant_type=b", "auth": ("nobody", "x")}, 400, "invalid_request"),
        ({"content": b"\xff\xfe", "auth": ("nobody", "x")}, 400, "invalid_request"),
        ({"data": {"grant_type": "password"}, "auth": ("nobody", "x")}, 400, "unsupported_grant_type"),
    ],
)
def test_a_refused_token_request_says_why(
    service: RunningService, request_: dict[str, Any], status: int, error: str
) -> None:
    reply = httpx.post(f"{service.url}/oauth/token", **request_)
    assert (reply.status_code, reply.json()["error"]) == (status, error)
    assert reply.json()["error_description"]
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers.get("WWW-Authenticate") == ('Basic realm="training"' if status == 401 else None)


def test_a_wrong_secret_is_refused(tenant: Tenant) -> None:
    reply = httpx.get(f"{tenant.service.url}/oauth/token", params=GRANT, auth=(tenant.credentials.client_id, "wrong"))
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("wrong", ["nonsense", "no claims", "of nobody", "expired", "another key", "basic"])
def test_a_request_without_a_valid_token_is_refused(service: RunningService, tmp_path: Path, wrong: str) -> None:
    ours, other = service.database_url, f"sqlite:///{tmp_path / 'other.db'}"
    header = {
        "nonsense": "Bearer x.y.z",
        "no claims": f"Bearer {jwt.encode({}, 'k' * 64, algorithm='HS256', headers={'kid': 'a'})}",
        "of nobody": f"Bearer {issued(ours, 'nobody')}",
        "expired": f"Bearer {issued(ours, 'tests', lifetime=-10)}",
        "another key": f"Bearer {issued(other, 'tests')}",
        "basic": "Basic bWU6bWU=",
    }[wrong]
    for method, path in (("GET", "jobs"), ("POST", "jobs/a"), ("GET", "jobs/a/logs"), ("POST", "storage")):
        reply = httpx.request(method, f"{service.url}/api/v2/{path}", headers={"Authorization": header})
        assert reply.status_code == 401
        # Without a Bearer token in the request, there is no error in it to report.
        error = "" if wrong == "basic" else ', error="invalid_token"'
        assert reply.headers["WWW-Authenticate"] == f'Bearer realm="training"{error}'
        assert reply.json()["error"]["code"] == "401"


def issued(database: str, client_id: str, lifetime: int = 60) -> str:
    """A token as the service issues it, for a client that may not exist."""
    sessions = open_database(database)
    tokens = Tokens(sessions, lifetime)
    tokens.renew_keys()
    token = tokens.issue(RegisteredClient(client_id, "tenant", frozenset({"jobs:read"}), "1", now()), frozenset())
    with sessions() as session:
        session.get_bind().engine.dispose()
    return token


def test_a_request_without_any_token_is_asked_for_one(service: RunningService) -> None:
    reply = httpx.get(f"{service.url}/api/v2/jobs")
    assert (reply.status_code, reply.headers["WWW-Authenticate"]) == (401, 'Bearer realm="training"')
    assert "/oauth/token" in reply.json()["error"]["message"]


def token_of(service: RunningService, added: dict[str, str], **form: str) -> httpx.Response:
    credentials = {name: added[name] for name in ("client_id", "client_secret")}
    return httpx.post(f"{service.url}/oauth/token", data=GRANT | credentials | form)


def allowed(service: RunningService, token: httpx.Response) -> dict[str, int]:
    """The status of a request with the token, for reading, writing and the storage."""
    header = {"Authorization": f"Bearer {token.raise_for_status().json()['access_token']}"}
    requests = {"read": ("GET", "jobs"), "write": ("DELETE", "jobs/none"), "storage": ("GET", "storage")}
    replies = {
        what: httpx.request(method, f"{service.url}/api/v2/{path}", headers=header)
        for what, (method, path) in requests.items()
    }
    for reply in replies.values():
        if reply.status_code == 403:
            challenge = 'Bearer realm="training", error="insufficient_scope", scope="jobs:'
            assert reply.headers["WWW-Authenticate"].startswith(challenge)
    return {what: reply.status_code for what, reply in replies.items()}


def test_a_client_for_reading_cannot_write(service: RunningService) -> None:
    reader = json.loads(clients(service, "add", "--scope", "jobs:read", "--json"))
    token = token_of(service, reader)
    assert token.json()["scope"] == "jobs:read"
    assert allowed(service, token) == {"read": 200, "write": 403, "storage": 403}
    refused = token_of(service, reader, scope="jobs:write")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")


def test_a_token_for_less_than_the_client_may_do(service: RunningService) -> None:
    both = json.loads(clients(service, "add", "--json"))
    assert allowed(service, token_of(service, both)) == {"read": 200, "write": 404, "storage": 200}
    less = token_of(service, both, scope="jobs:write")
    assert allowed(service, less) == {"read": 403, "write": 404, "storage": 200}


@on_both
def test_a_new_secret_ends_the_old_one_and_its_tokens(service: RunningService) -> None:
    old = json.loads(clients(service, "add", "--json"))
    token = token_of(service, old)
    new = json.loads(clients(service, "rotate", old["client_id"], "--json"))
    assert token_of(service, old).status_code == 401
    assert refused(service, token)
    assert allowed(service, token_of(service, new))["read"] == 200


def test_a_client_that_is_removed_is_out_at_once(service: RunningService) -> None:
    added = json.loads(clients(service, "add", "--json"))
    token = token_of(service, added)
    assert added["client_id"] in clients(service, "list")
    clients(service, "remove", added["client_id"])
    assert added["client_id"] not in clients(service, "list")
    assert token_of(service, added).status_code == 401
    assert refused(service, token)


def test_tokens_are_revoked_by_command(own_service: RunningService) -> None:
    added = json.loads(clients(own_service, "add", "--json"))
    token = token_of(own_service, added)
    assert allowed(own_service, token)["read"] == 200
    run("revoke-tokens", *own_service.options_of_commands)
    wait_for(lambda: refused(own_service, token), "the end of the token")
    assert allowed(own_service, token_of(own_service, added))["read"] == 200


def refused(service: RunningService, token: httpx.Response) -> bool:
    header = {"Authorization": f"Bearer {token.json()['access_token']}"}
    return httpx.get(f"{service.url}/api/v2/jobs", headers=header).status_code == 401


@on_both
def test_an_old_key_is_replaced_while_its_tokens_go_on(sessions_url: str) -> None:
    sessions = open_database(sessions_url)
    tokens = Tokens(sessions, lifetime=3600)
    tokens.renew_keys()
    client = RegisteredClient("me", "tenant", frozenset({"jobs:read"}), "1", now())
    before = tokens.issue(client, client.scope)
    age_keys(sessions, timedelta(days=30, minutes=10))
    tokens.renew_keys()
    after = tokens.issue(client, client.scope)
    assert jwt.get_unverified_header(before)["kid"] != jwt.get_unverified_header(after)["kid"]
    assert tokens.read(before) == Claims("me", "1", frozenset({"jobs:read"}))
    age_keys(sessions, timedelta(days=30, minutes=70))
    tokens.renew_keys()
    assert tokens.read(before) is None
    with sessions() as session:
        session.get_bind().engine.dispose()


def age_keys(sessions: sessionmaker[Session], age: timedelta) -> None:
    with sessions.begin() as session:
        session.execute(update(SigningKey).values(created=now() - age))


def test_a_client_is_added_by_command_and_its_secret_is_kept_as_a_hash_only(service: RunningService) -> None:
    added = json.loads(clients(service, "add", "team-a", "--tenant", "team", "--json"))
    assert added["tenant"] == "team"
    assert token_of(service, added).status_code == 200
    files = list(service.data.glob("service.db*"))
    assert files
    assert not [file for file in files if added["client_secret"].encode() in file.read_bytes()]
    assert b"$argon2id$" in b"".join(file.read_bytes() for file in files)


def test_a_verified_secret_is_cached_until_it_is_rotated(
    sessions: sessionmaker[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    known, others = Clients(sessions), Clients(sessions)
    client = known.add("team", f"again-{secrets.token_hex(4)}")
    hashed: list[str] = []
    verify = PasswordHasher.verify

    def counted(hasher: PasswordHasher, stored: str, secret: str) -> bool:
        hashed.append(secret)
        return verify(hasher, stored, secret)

    monkeypatch.setattr(PasswordHasher, "verify", counted)

    def comes(secret: str) -> bool:
        return (
            known.authenticate_cached(client.client_id, secret) or known.authenticate(client.client_id, secret)
        ) is not None

    assert comes(client.client_secret)
    assert comes(client.client_secret)
    assert hashed == [client.client_secret], "once by the slow hash"
    assert not comes("x" * 32)
    assert not comes("x" * 32)
    assert len(hashed) == 3, "a wrong one is never known"
    new = others.rotate(client.client_id)
    assert not comes(client.client_secret)
    assert comes(new.client_secret)
    others.remove(client.client_id)
    assert not comes(new.client_secret)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "--tenant", "../x"), "The tenant must be 1 to 63 letters, digits, "),
        (
            ("add", "--scope", "jobs:all"),
            "There is no scope 'jobs:all': choose from jobs:read and jobs:write. [AT-562]\n",
        ),
        (
            ("rotate", "nobody"),
            "There is no client 'nobody': `airflow-training clients list` shows all clients. [AT-566]\n",
        ),
        (
            ("remove", "nobody"),
            "There is no client 'nobody': `airflow-training clients list` shows all clients. [AT-566]\n",
        ),
    ],
)
def test_an_error_is_one_sentence(service: RunningService, arguments: Sequence[str], sentence: str) -> None:
    done = command("clients", *arguments, *service.options_of_commands)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


def test_an_id_that_is_taken_is_refused(service: RunningService) -> None:
    clients(service, "add", "twice")
    done = command("clients", "add", "twice", *service.options_of_commands)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "The client 'twice' exists already: choose another id. [AT-564]\n"


@on_both
def test_a_secret_that_was_chosen_elsewhere_is_taken_and_not_shown(service: RunningService, tmp_path: Path) -> None:
    given = tmp_path / "secret"
    chosen = {"client_id": f"chosen-{tmp_path.name}", "client_secret": secrets.token_hex()}
    given.write_text(chosen["client_secret"] + "\n")
    # What sets up a service runs at each of its starts.
    for _ in range(2):
        shown = clients(service, "add", chosen["client_id"], "--secret-file", str(given))
        assert chosen["client_id"] in shown
        assert chosen["client_secret"] not in shown
    token = token_of(service, chosen)
    assert allowed(service, token)["read"] == 200

    given.write_text(secrets.token_hex())
    done = command("clients", "add", chosen["client_id"], "--secret-file", str(given), *service.options_of_commands)
    assert done.returncode == 1
    assert done.stderr.startswith(f"The client '{chosen['client_id']}' exists already, with another secret")
    clients(service, "rotate", chosen["client_id"], "--secret-file", str(given))
    assert refused(service, token)
    assert token_of(service, {**chosen, "client_secret": given.read_text()}).status_code == 200


@pytest.mark.parametrize("secret", [b"", b"short", b"with a space in it, and long enough", b"\xff" * 40])
def test_an_invalid_secret_is_refused(service: RunningService, tmp_path: Path, secret: bytes) -> None:
    given = tmp_path / "secret"
    given.write_bytes(secret)
    done = command("clients", "add", "--secret-file", str(given), *service.options_of_commands)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "A client secret must have 32 to 255 ASCII characters and no spaces. [AT-563]\n"


def clients(service: RunningService, *arguments: str) -> str:
    return run("clients", *arguments, *service.options_of_commands)


def run(*arguments: str) -> str:
    done = command(*arguments)
    done.check_returncode()
    return done.stdout


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "airflow_training.cli.main", *arguments]
    wide = {**os.environ, "COLUMNS": "200"}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=wide)


def test_keys_are_readable_by_their_owner_only(tenant: Tenant) -> None:
    tenant.storage()
    files = tenant.service.files
    for file in (files.database, files.storage / "keys.json"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert files.root.stat().st_mode & 0o777 == 0o700
