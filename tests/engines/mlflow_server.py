"""MLflow's own server, in an environment of its own: it needs other versions of what Airflow needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from airflow_training.local.process import LocalProcess, end_processes_in, free_port
from tests.engines.listening import listens
from tests.patience import PATIENCE, wait_for

# That of the client in dags/train_mlflow.py.
VERSION = "3.17.2"


class MlflowServer:
    """A server with an empty SQLite database."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, **parameters: Any) -> Any:
        """Send a request of MLflow's REST API, and return the answer."""
        given: dict[str, Any] = {"params" if method == "GET" else "json": parameters}
        reply = requests.request(method, f"{self.url}/api/2.0/mlflow/{path}", timeout=PATIENCE, **given)
        assert reply.ok, reply.text
        return reply.json()


@contextmanager
def running_mlflow(folder: Path) -> Iterator[MlflowServer]:
    """Run MLflow's server, with an empty database below a folder; uv installs it."""
    port = free_port()
    program = ["uv", "tool", "run", "--python", sys.executable, "--from", f"mlflow=={VERSION}", "mlflow", "server"]
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--backend-store-uri": f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination": str(folder / "artifacts"),
    }
    words = [word for option in options.items() for word in option]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    server = LocalProcess(
        [sys.executable, "-m", *program, *words],
        folder=folder,
        name="mlflow",
        env=environment | {"MLFLOW_DISABLE_TELEMETRY": "true"},
    )

    def ready() -> bool:
        server.check()
        return listens(("127.0.0.1", port))

    try:
        server.start()
        wait_for(ready, "MLflow's server")
        yield MlflowServer(f"http://127.0.0.1:{port}")
    finally:
        server.stop()
        # It leaves its children behind.
        end_processes_in(folder)
