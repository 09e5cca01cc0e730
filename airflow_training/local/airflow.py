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
from typing import Any
from urllib.parse import urlsplit

import requests

from airflow_training.local.process import LocalProcess, LocalProcessError, end_all_in, free_port, wait_until
from airflow_training.local.service import Credentials

_USER = "admin"
_COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")


class LocalAirflow:
    """Airflow in a folder, on a free port of the loopback interface.

    Args:
        folder: Where it keeps everything.
        dags: The folder of the Dags.
        settings: More of Airflow's settings, as environment variables.

    Attributes:
        home: Its folder.
        database: Its database, a file of SQLite.
        url: Address of its UI and its REST API.
        password: Password of the user `admin`.
        components: The processes by their names; each can be stopped and started.
    """

    def __init__(self, folder: Path, dags: Path, settings: Mapping[str, str] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.password = secrets.token_urlsafe(12)
        self.home = folder
        self.database = folder / "airflow.db"
        self._env = self._environment(port, dags) | dict(settings or {})
        self._session = requests.Session()
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
        passwords.write_text(json.dumps({_USER: self.password}))
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
            raise LocalProcessError(f"airflow {' '.join(arguments)} failed: {done.stdout[-2000:]}")
        return done.stdout

    def start(self) -> None:
        """Start everything and wait until it is healthy."""
        for component in self.components.values():
            component.start()
        wait_until(self._healthy, "Airflow", timeout=180, interval=0.5)

    def stop(self) -> None:
        """Stop everything, and whatever it started."""
        self._session.close()
        # All at once: one that waited for another would wait in vain.
        end_all_in(self.home)
        for component in self.components.values():
            component.stop()

    def check(self) -> None:
        """Raise LocalProcessError where a part of it ended by itself."""
        for component in self.components.values():
            component.check()

    def api(self, method: str, path: str, *, body: Any = None, **params: Any) -> Any:
        """Make a request of the REST API (`/api/v2`) and return the JSON it answers with.

        Raises:
            LocalProcessError: It answers with an error.
        """
        reply = self._request(method, path, body, params)
        if reply.status_code == requests.codes.unauthorized:
            self._log_in()
            reply = self._request(method, path, body, params)
        if not reply.ok:
            raise LocalProcessError(f"Airflow answered {method} {path} with {reply.status_code}: {reply.text[:500]}")
        return reply.json() if reply.content else None

    def _request(self, method: str, path: str, body: Any, params: Mapping[str, Any]) -> requests.Response:
        try:
            return self._session.request(method, f"{self.url}/api/v2{path}", json=body, params=params, timeout=60)
        except requests.RequestException as error:
            self.check()
            raise LocalProcessError(f"Airflow did not answer {method} {path}: {error}") from error

    def connect(self, conn_id: str, service_url: str, credentials: Credentials) -> None:
        """Create the connection to a training service."""
        url = urlsplit(service_url)
        connection = {
            "connection_id": conn_id,
            "conn_type": "training",
            "schema": url.scheme,
            "host": url.hostname,
            "port": url.port,
            "login": credentials.client_id,
            "password": credentials.client_secret,
            "extra": json.dumps({"oauth_token_url": f"{service_url}/oauth/token"}),
        }
        self.api("POST", "/connections", body=connection)

    def wait_for_dag(self, dag_id: str, timeout: float = 180) -> None:
        """Wait until Airflow has read a Dag."""

        def known() -> bool:
            found = self.api("GET", "/dags", dag_id_pattern=dag_id)["dags"]
            if not found and (errors := self.api("GET", "/importErrors")["import_errors"]):
                raise LocalProcessError(f"A Dag could not be read: {errors[0]['stack_trace']}")
            return bool(found)

        wait_until(known, f"The Dag {dag_id}", timeout=timeout, interval=0.5)

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run of a Dag and return its id."""
        body = {"logical_date": None, "conf": dict(conf or {}), "dag_run_id": run_id}
        run = self.api("POST", f"/dags/{dag_id}/dagRuns", body=body)
        return str(run["dag_run_id"])

    def wait_for_run(self, dag_id: str, run_id: str, timeout: float = 300) -> str:
        """Wait until a run has ended and return its state."""

        def state() -> str:
            return str(self.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

        wait_until(lambda: state() in {"success", "failed"}, f"The end of {run_id}", timeout=timeout, interval=0.5)
        return state()

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """The task instance as the REST API shows it."""
        found: dict[str, Any] = self.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")
        return found

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        found: list[dict[str, Any]] = self.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")[
            "task_instances"
        ]
        return found

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task, so that it runs again."""
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False}
        self.api("POST", f"/dags/{dag_id}/clearTaskInstances", body=body)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task as `success` or `failed`."""
        self.api("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}", body={"new_state": state})

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> list[dict[str, Any]]:
        """The task log as the UI shows it: one entry per line, with `event`, `timestamp` and `level`."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.api("GET", path, full_content="true")["content"]
        return [entry if isinstance(entry, dict) else {"event": entry} for entry in content]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """The value of an XCom."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.api("GET", path, deserialize="true")["value"]

    def _log_in(self) -> None:
        reply = self._session.post(
            f"{self.url}/auth/token", json={"username": _USER, "password": self.password}, timeout=60
        )
        reply.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {reply.json()['access_token']}"

    def _healthy(self) -> bool:
        self.check()
        try:
            health = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=10)
        except (requests.ConnectionError, requests.Timeout):
            return False
        return health.ok and all(
            health.json()[part]["status"] == "healthy"
            for part in ("metadatabase", "scheduler", "dag_processor", "triggerer")
        )

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
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{_USER}:admin",
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
