"""A real PostgreSQL server for the tests: on a free port of the loopback interface, in a folder of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import psycopg
import psycopg.sql
import pytest

from airflow_training.local.process import free_port
from tests.patience import wait_for

# Some of it has to be quoted in a URL.
PASSWORD = "s3cret@of/the tests"
_USER, _ADMINISTRATOR = "training", "postgres"


class PostgreSQL:
    """A server that a test may stop and start; each test makes a database of its own in it."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._data = folder / "data"
        self._output = folder / "log"
        self._port = free_port()
        # initdb and postgres refuse to run as root.
        self._user = _other_user() if os.getuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        password = self._folder / "password"
        password.write_text(PASSWORD)
        if self._user:
            for path in (self._folder, password):
                shutil.chown(path, self._user)
        words = (
            "--username",
            _ADMINISTRATOR,
            "--auth",
            "scram-sha-256",
            "--pwfile",
            str(password),
            "--encoding",
            "UTF8",
        )
        command = [str(self._programs / "initdb"), "--no-sync", "--no-locale", *words, str(self._data)]
        done = subprocess.run(command, user=self._user, cwd=self._folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": "",
            # Where times without a zone are taken for local ones, it shows.
            "timezone": "Asia/Tokyo",
            "fsync": "off",
        }
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self._data), *words],
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_for(self._answers, "An answer of PostgreSQL")

    def stop(self) -> None:
        """Stop it as an administrator does who is in a hurry: connections are ended."""
        if self._process:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(30)
            self._process = None

    def url(self, database: str, *, password: str = PASSWORD, port: int | None = None) -> str:
        return f"postgresql+psycopg://{_USER}:{quote(password, safe='')}@127.0.0.1:{port or self._port}/{database}"

    @contextmanager
    def database(self) -> Iterator[str]:
        """A new database; its URL."""
        name = f"training_{uuid4().hex}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER {_USER}".encode())
        try:
            yield self.url(name)
        finally:
            with self.connect() as connection:
                connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())

    def add_user(self) -> None:
        """Add the one that the service uses, who may do no more than it needs."""
        role = psycopg.sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(psycopg.sql.Identifier(_USER), PASSWORD)
        with self.connect() as connection:
            connection.execute(role)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of a test's own: `database` is a name or a URL."""
        url = database if ":" in database else self.url(database).replace(_USER, _ADMINISTRATOR, 1)
        return psycopg.connect(url.replace("+psycopg", ""), autocommit=True, connect_timeout=5)

    def _answers(self) -> bool:
        assert self._process
        assert self._process.poll() is None, self._output.read_text()
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def running_server() -> Iterator[PostgreSQL]:
    """A server; where PostgreSQL is not installed, the test is skipped."""
    programs = _programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL here: apt install postgresql")
    # Not below pytest's own folder, into which no other user may look.
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    server = PostgreSQL(programs, folder)
    try:
        server.make()
        server.start()
        server.add_user()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)


def _programs() -> Path | None:
    """The folder of initdb and postgres: Debian has it on no PATH."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(versions, key=lambda program: float(program.parts[-3]), default=None)
    return newest.parent if newest else None


def _other_user() -> str:
    known = {user.pw_name for user in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"
