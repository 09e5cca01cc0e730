"""PostgreSQL as the database: errors in one sentence, and a service that survives its restarts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.orm import Session, sessionmaker

from airflow_training.local.process import free_port
from airflow_training.service.accounts.clients import Clients
from airflow_training.service.accounts.tokens import Tokens
from airflow_training.service.database.engine import postgresql_url as read
from airflow_training.service.database.lock import DatabaseLock
from airflow_training.service.database.models import open_database
from airflow_training.service.errors import ClientNotChanged, ServiceNotStarted
from airflow_training.service.settings import ServiceSettings
from tests.engines.postgresql import PASSWORD, PostgreSQL
from tests.patience import PATIENCE, wait_for
from tests.service.support import POSTGRESQL, RunningService, Tenant, on

UNTIL_TOLD = "while ! test -e go; do sleep 0.02; done; exit 7"
CANNOT_BE_READ = (
    "The database URL cannot be read: write it like postgresql+psycopg://user:password@host:5432/database, with %40"
    " for an @ and %2F for a / in the password. [AT-521]"
)


@on(POSTGRESQL)
def test_the_service_goes_on_when_the_database_is_back(
    postgresql: PostgreSQL, own_service: RunningService, own_tenant: Tenant
) -> None:
    goes_on, ends_meanwhile = (own_tenant.submit(UNTIL_TOLD) for _ in range(2))
    for job_id in (goes_on, ends_meanwhile):
        own_tenant.wait(job_id, "RUNNING")
    before = own_tenant.status(goes_on)

    postgresql.stop()
    try:
        reply = httpx.get(f"{own_service.url}/healthz")
        assert (reply.status_code, reply.json()["database"]) == (503, "failed")
        reply = own_tenant.http.get(f"jobs/{goes_on}")
        message = "The database of the service is unavailable: try again. [AT-644]"
        assert (reply.status_code, reply.json()) == (503, {"error": {"code": "503", "message": message}})
        assert httpx.get(f"{own_service.url}/metrics").status_code == 503
        (own_tenant.work(ends_meanwhile) / "go").touch()
        state = own_service.files.job_state(own_tenant.name, ends_meanwhile)
        wait_for((state / "exit.json").exists, "the end of a job while there is no database")
    finally:
        postgresql.start()

    assert own_tenant.wait(ends_meanwhile)["message"] == "the command exited with status 7 [AT-451]"
    assert own_tenant.status(goes_on) == before
    wait_for(lambda: httpx.get(f"{own_service.url}/healthz").is_success, "the health of the service")
    assert own_tenant.wait(own_tenant.submit("true"))["status"] == "SUCCEEDED"
    (own_tenant.work(goes_on) / "go").touch()
    assert own_tenant.wait(goes_on)["message"] == "the command exited with status 7 [AT-451]"
    done = command("prune", "--keep-days", "0", *own_service.options_of_commands)
    assert (done.stdout, done.stderr) == ("3 jobs were removed.\n", "")
    assert own_tenant.http.get("jobs").json() == {"jobs": []}
    assert PASSWORD not in own_service.process.output.read_text()


@on(POSTGRESQL)
def test_two_services_on_one_database_are_refused(own_service: RunningService, tmp_path: Path) -> None:
    other = RunningService(tmp_path / "other", database_url=own_service.database_url)
    done = command("serve", "--port", "0", *other.options_of_commands)
    assert (done.returncode, done.stdout) == (1, "")
    where, name = own_service.database_url.rpartition("@")[2].split("/")
    assert done.stderr == (
        f"The database postgresql+psycopg://training:***@{where}/{name} is in use by another training service: stop"
        " that one, or choose another database. [AT-525]\n"
    )

    own_service.process.kill()
    with other.running():
        assert httpx.get(f"{other.url}/healthz").is_success


@on(POSTGRESQL)
def test_a_service_that_lost_its_lock_reacquires_it(postgresql: PostgreSQL, database_url: str) -> None:
    with opened(database_url) as sessions, locked(sessions):
        end_connections(postgresql, database_url)
        assert answers(sessions)
        with opened(database_url) as others:
            other = DatabaseLock(others)
            other._TIMEOUT = 0
            with pytest.raises(ServiceNotStarted, match="is in use by another training service"):
                other.start()


@on(POSTGRESQL)
def test_a_service_whose_lock_another_service_took_waits_for_its_end(postgresql: PostgreSQL, database_url: str) -> None:
    with opened(database_url) as sessions, locked(sessions) as lock, opened(database_url) as others:
        assert answers(sessions)
        end_connections(postgresql, database_url, locks_only=True)
        with locked(others):
            assert answers(others)
            with pytest.raises(DisconnectionError, match="was taken by another training service"):
                lock.ensure_held()
            with pytest.raises(DisconnectionError):
                answers(sessions)
        lock.ensure_held()
        assert answers(sessions)


@contextmanager
def opened(url: str) -> Iterator[sessionmaker[Session]]:
    sessions = open_database(url)
    engine: Engine = sessions.kw["bind"]
    yield sessions
    engine.dispose()


@contextmanager
def locked(sessions: sessionmaker[Session]) -> Iterator[DatabaseLock]:
    lock = DatabaseLock(sessions)
    lock.start()
    yield lock
    lock.stop()


def answers(sessions: sessionmaker[Session]) -> bool:
    with sessions() as session:
        return session.scalar(select(1)) == 1


def end_connections(server: PostgreSQL, url: str, *, locks_only: bool = False) -> None:
    """End the connections of a database, or those that hold a lock for as long as they last."""
    ended = """
        SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND datname = current_database()
        AND (NOT %s OR pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory'))
    """
    with server.connect(url) as connection:
        assert connection.execute(ended, [locks_only]).fetchall()


@on(POSTGRESQL)
def test_clients_and_keys_are_changed_as_in_sqlite(database_url: str) -> None:
    with opened(database_url) as sessions:
        clients, tokens = Clients(sessions), Tokens(sessions, lifetime=60)
        first = clients.add("tenant", "me")
        with pytest.raises(ClientNotChanged, match="exists already"):
            clients.add("tenant", "me")
        tokens.renew_keys()
        client = clients.authenticate("me", first.client_secret)
        assert client
        token = tokens.issue(client, client.scope)
        assert tokens.read(token)

        second = clients.rotate("me")
        assert clients.authenticate("me", first.client_secret) is None
        assert clients.authenticate("me", second.client_secret)
        assert clients.current("me", client.generation) is None
        tokens.rotate(revoke=True)
        assert tokens.read(token) is None
        clients.remove("me")
        assert clients.all() == []
        with pytest.raises(ClientNotChanged, match="There is no client 'me'"):
            clients.remove("me")


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "mysql://training:s3cret@host/training",
        "sqlite:////tmp/s3cret.db",
        "postgresql://training:p@s3cret@host/training",
        "postgresql://training:p@host:s3cret/training",
    ],
)
def test_a_url_that_cannot_be_read_is_not_shown(url: str) -> None:
    with pytest.raises(ServiceNotStarted) as refused:
        read(url)
    assert str(refused.value) == CANNOT_BE_READ


def test_the_settings_of_a_service_do_not_show_its_password() -> None:
    url = "postgresql://training:s3cret@host/training"
    settings: dict[str, Any] = dict.fromkeys(field.name for field in fields(ServiceSettings)) | {"database_url": url}
    assert "s3cret" not in repr(ServiceSettings(**settings))


@pytest.mark.parametrize("wrong", ["password", "database", "port", "rights"])
def test_a_database_that_cannot_be_used_is_one_sentence(postgresql: PostgreSQL, wrong: str) -> None:
    with postgresql.database() as right:
        name = right.rpartition("/")[2]
        with postgresql.connect(right) as connection:
            connection.execute("DROP SCHEMA public")
        url, why = {
            "password": (postgresql.url(name, password="wr0ng"), 'password authentication failed for user "training"'),
            "database": (postgresql.url("nowhere"), 'database "nowhere" does not exist'),
            "port": (postgresql.url(name, port=free_port()), "Connection refused"),
            "rights": (right, "no schema has been selected to create in"),
        }[wrong]
        with pytest.raises(ServiceNotStarted) as refused:
            open_database(read(f"{url}?application_name=s3cret"))
    shown = f"postgresql+psycopg://training:***@{url.rpartition('@')[2]}"
    assert str(refused.value) == (
        f"The database {shown} cannot be used ({why}): check that it exists, and that the service may"
        " create tables in it. [AT-523]"
    )


def test_a_command_ends_with_the_sentence(postgresql: PostgreSQL) -> None:
    done = command("clients", "list", "--database-url", postgresql.url("nowhere"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("The database postgresql+psycopg://training:***@127.0.0.1:")
    assert done.stderr.count("\n") == 1


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(
        ServiceNotStarted, match=r"pip install \"airflow-training\[service,postgresql\]\"\. \[AT-522\]$"
    ):
        open_database(read("postgresql://training@host/training"))


@on(POSTGRESQL)
def test_tables_of_others_are_left_alone(postgresql: PostgreSQL, database_url: str) -> None:
    with postgresql.connect(database_url) as connection:
        connection.execute("CREATE TABLE theirs AS SELECT 1 AS a")
        with opened(database_url) as sessions:
            assert answers(sessions)
        assert connection.execute("SELECT a FROM theirs").fetchall() == [(1,)]
        assert connection.execute("SELECT count(*) FROM jobs").fetchall() == [(0,)]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "airflow_training.cli.main", *arguments]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=PATIENCE)
