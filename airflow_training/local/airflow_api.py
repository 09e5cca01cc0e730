"""A client of Airflow's REST API, for a local or another Airflow."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import requests

from airflow_training.local.process import LocalProcessError, wait_until
from airflow_training.local.service import Credentials

USER = "admin"


class AirflowApi:
    """The REST API (`/api/v2`) of an Airflow, as its user `admin`.

    Attributes:
        url: URL of its UI and REST API.
        password: Password of the user.
        patience: Seconds to wait for a Dag or the end of a run.
    """

    def __init__(self, url: str, password: str) -> None:
        self.url = url
        self.password = password
        self.patience = 300.0
        self._session = requests.Session()

    def close(self) -> None:
        self._session.close()

    def check(self) -> None:
        """Raise LocalProcessError if a component is known to have ended by itself."""

    def healthy(self) -> bool:
        """Whether all components are healthy."""
        self.check()
        try:
            health = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=10)
        except (requests.ConnectionError, requests.Timeout):
            return False
        return health.ok and all(
            health.json()[part]["status"] == "healthy"
            for part in ("metadatabase", "scheduler", "dag_processor", "triggerer")
        )

    def api(self, method: str, path: str, *, body: Any = None, **params: Any) -> Any:
        """Send a request to the REST API (`/api/v2`) and return the JSON of the reply.

        Raises:
            LocalProcessError: The reply is an error, or there is none.
        """
        reply = self._request(method, path, body, params)
        if reply.status_code == requests.codes.unauthorized:
            self._log_in()
            reply = self._request(method, path, body, params)
        last = time.monotonic() + self.patience
        # Nothing was changed then. Airflow's api-server (3.3) waits on its event loop for SQLite, until that gives up:
        # for a transaction that only this loop can end.
        while reply.status_code == requests.codes.internal_server_error and "Database error" in reply.text:
            if time.monotonic() > last:
                break
            reply = self._request(method, path, body, params)
        if not reply.ok:
            raise LocalProcessError(
                f"Airflow answered {method} {path} with {reply.status_code}: {reply.text[:500]}", code="AT-712"
            )
        return reply.json() if reply.content else None

    def _request(self, method: str, path: str, body: Any, params: Mapping[str, Any]) -> requests.Response:
        try:
            return self._session.request(method, f"{self.url}/api/v2{path}", json=body, params=params, timeout=300)
        except requests.RequestException as error:
            self.check()
            raise LocalProcessError(f"Airflow did not answer {method} {path}: {error}", code="AT-713") from error

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

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until Airflow has parsed a Dag."""

        def known() -> bool:
            found = self.api("GET", "/dags", dag_id_pattern=dag_id)["dags"]
            if not found and (errors := self.api("GET", "/importErrors")["import_errors"]):
                raise LocalProcessError(f"A Dag could not be imported: {errors[0]['stack_trace']}", code="AT-714")
            return bool(found)

        wait_until(known, f"import of the Dag {dag_id}", timeout=self.patience, interval=0.5)

    def unpause(self, dag_id: str) -> None:
        """Unpause a Dag, once Airflow has parsed it."""
        self.wait_for_dag(dag_id)
        self.api("PATCH", f"/dags/{dag_id}", body={"is_paused": False})

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None, run_id: str | None = None) -> str:
        """Start a run of a Dag and return its id."""
        body = {"logical_date": None, "conf": dict(conf or {}), "dag_run_id": run_id}
        run = self.api("POST", f"/dags/{dag_id}/dagRuns", body=body)
        return str(run["dag_run_id"])

    def wait_for_run(self, dag_id: str, run_id: str) -> str:
        """Wait until a run has ended and return its state."""

        def state() -> str:
            return str(self.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

        wait_until(
            lambda: state() in {"success", "failed"}, f"end of the run {run_id}", timeout=self.patience, interval=0.5
        )
        return state()

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """A task instance, as the REST API returns it."""
        return dict(self.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"))

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run."""
        return list(self.api("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"])

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """Clear a task, so that it runs again."""
        body = {"dry_run": False, "dag_run_id": run_id, "task_ids": [task_id], "only_failed": False}
        self.api("POST", f"/dags/{dag_id}/clearTaskInstances", body=body)

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Mark a task as `success` or `failed`."""
        self.api("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}", body={"new_state": state})

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1) -> list[dict[str, Any]]:
        """The task log, as in the UI: one entry per line, with `event`, `timestamp` and `level`."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        content = self.api("GET", path, full_content="true")["content"]
        return [entry if isinstance(entry, dict) else {"event": entry} for entry in content]

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> Any:
        """The value of an XCom."""
        path = f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        return self.api("GET", path, deserialize="true")["value"]

    def _log_in(self) -> None:
        reply = self._session.post(
            f"{self.url}/auth/token", json={"username": USER, "password": self.password}, timeout=60
        )
        reply.raise_for_status()
        self._session.headers["Authorization"] = f"Bearer {reply.json()['access_token']}"
