"""A local Airflow: api-server, scheduler, dag-processor and triggerer, on SQLite."""

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
from airflow_training.local.process import LocalProcess, LocalProcessError, end_processes_in, free_port, wait_until

_COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")


class LocalAirflow(AirflowApi):
    """Airflow in a folder, on a free port of the loopback interface.

    Args:
        folder: The folder of all its files.
        dags: The folder of the Dags.
        settings: Further settings of Airflow, as environment variables.

    Attributes:
        home: Its folder.
        database: The file of its SQLite database.
        components: The processes by name; each can be stopped and started.
    """

    def __init__(self, folder: Path, dags: Path, settings: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        super().__init__(f"http://127.0.0.1:{port}", secrets.token_urlsafe(12))
        self.home = folder
        self.database = folder / "airflow.db"
        self._env = self._environment(port, dags) | dict(settings or {})
        self._options = {"api-server": ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]}
        # All components read the logs from this machine's disk.
        self._options |= {name: ["--skip-serve-logs"] for name in ("scheduler", "triggerer")}
        self.components = {program: self.component(program, program) for program in _COMPONENTS}

    def component(self, program: str, name: str) -> LocalProcess:
        """A component, not yet started, such as a second triggerer."""
        command = _program(program, *self._options.get(program, []))
        return LocalProcess(command, folder=self.home, name=name, env=self._env)

    def migrate(self) -> None:
        """Create the database."""
        passwords = self.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps({USER: self.password}))
        self.command("db", "migrate")
        # In this mode readers and writers do not block each other; it is stored in the file.
        with closing(sqlite3.connect(self.database)) as database:
            database.execute("PRAGMA journal_mode = wal")

    def command(self, *arguments: str) -> str:
        """Run `airflow …` and return its output.

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
        """Start all components and wait until they are healthy."""
        for component in self.components.values():
            component.start()
        wait_until(self.healthy, "start of Airflow", timeout=self.patience, interval=0.5)

    def stop(self) -> None:
        """Stop all components and the processes that they started."""
        self.close()
        # All at once, since a component may wait for another one in vain.
        end_processes_in(self.home)
        for component in self.components.values():
            component.stop()

    def check(self) -> None:
        """Raise LocalProcessError if a component has ended by itself."""
        for component in self.components.values():
            component.check()

    def _environment(self, port: int, dags: Path) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        return inherited | {
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            # Four processes and their children share SQLite. On a busy machine they wait for each other longer than the
            # five seconds of Python's default.
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{self.database}?timeout=60",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{port}/execution/",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self.home / "passwords.json"),
            # Not the default ports, on which another local Airflow may serve its logs.
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{port}",
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(16),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            # Triggers start, and their tasks resume, within a second.
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # On an overloaded machine the scheduler's heartbeat is late. After half a minute it would count as dead,
            # and its tasks would start again.
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "600",
            "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
            # Seconds. It may also take long there to read a Dag, or to answer a worker: by default this gives up after
            # five seconds, asks to start its task once more, and fails since the task is running already.
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "300",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "600",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "120",
        }


def _program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "airflow", *arguments]
