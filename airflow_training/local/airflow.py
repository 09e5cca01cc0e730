"""A real Airflow on this machine: api-server, scheduler, dag-processor and triggerer, on SQLite."""

from __future__ import annotations

import base64
import json
import os
import secrets
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from airflow_training.local.airflow_api import USER, AirflowApi
from airflow_training.local.process import LocalProcess, LocalProcessError, end_all_in, free_port, wait_until

_COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")


class LocalAirflow(AirflowApi):
    """Airflow in a folder, on a free port of the loopback interface.

    Args:
        folder: Where it keeps everything.
        dags: The folder of the Dags.
        settings: More of Airflow's settings, as environment variables.

    Attributes:
        home: Its folder.
        database: Its database, a file of SQLite.
        components: The processes by their names; each can be stopped and started.
    """

    def __init__(self, folder: Path, dags: Path, settings: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        super().__init__(f"http://127.0.0.1:{port}", secrets.token_urlsafe(12))
        self.home = folder
        self.database = folder / "airflow.db"
        self._env = self._environment(port, dags) | dict(settings or {})
        self._options = {"api-server": ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]}
        # The logs are on this machine's disk: nobody needs to serve them to others.
        self._options |= {name: ["--skip-serve-logs"] for name in ("scheduler", "triggerer")}
        self.components = {program: self.component(program, program) for program in _COMPONENTS}

    def component(self, program: str, name: str) -> LocalProcess:
        """A process of this Airflow, not started yet; a second triggerer for instance."""
        command = _program(program, *self._options.get(program, []))
        return LocalProcess(command, folder=self.home, name=name, env=self._env)

    def migrate(self) -> None:
        """Create the database."""
        passwords = self.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({USER: self.password}))
        self.command("db", "migrate")
        # Who reads does not keep others from writing then, nor is kept from it; the file remembers.
        with closing(sqlite3.connect(self.database)) as database:
            database.execute("PRAGMA journal_mode = wal")

    def command(self, *arguments: str) -> str:
        """Run `airflow …` to its end and return what it wrote.

        Raises:
            LocalProcessError: It failed.
        """
        done = subprocess.run(
            _program(*arguments),
            env=self._env,
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise LocalProcessError(f"airflow {' '.join(arguments)} failed: {done.stdout[-2000:]}", code="AT-711")
        return done.stdout

    def start(self) -> None:
        """Start everything and wait until it is healthy."""
        for component in self.components.values():
            component.start()
        wait_until(self.healthy, "Airflow", timeout=self.patience, interval=0.5)

    def stop(self) -> None:
        """Stop everything, and whatever it started."""
        self.close()
        # All at once: one that waited for another would wait in vain.
        end_all_in(self.home)
        for component in self.components.values():
            component.stop()

    def check(self) -> None:
        """Raise LocalProcessError where a part of it ended by itself."""
        for component in self.components.values():
            component.check()

    def _environment(self, port: int, dags: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return inherited | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            # Four processes and their children share SQLite, and on a busy machine they wait longer for each other than
            # the five seconds after which Python gives up.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}?timeout=60",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            # Where nobody serves logs: at the usual ports another Airflow of this machine may.
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            # A trigger is picked up, and a finished one resumed, within a second.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # On a machine that is short of everything the one scheduler's heart beats late. After half a minute it
            # would take itself for dead, and start its own tasks once more.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "600",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        }


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]
