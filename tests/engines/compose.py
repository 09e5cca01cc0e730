"""The stack of docker-compose.yaml, brought up by Docker Compose on a real container engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from docker.errors import DockerException
from docker.models.containers import Container
from requests import RequestException

from airflow_training.local.airflow_api import AirflowApi
from airflow_training.local.process import free_port
from tests.engines.podman import Podman, environment
from tests.patience import PATIENCE, wait_for

_CHECKOUT = Path(__file__).parent.parent.parent
_COMPOSE = "localhost/airflow-training-compose:13"

# In no registry of packages: tests/stack/images cannot make it.
_UNTRIED = {"tensorflow-serving"}
_WELL = {"healthy", "exit 0"}


class Stack:
    """The stack, from a copy of what a user has, with secrets of its own."""

    def __init__(self, podman: Podman, folder: Path) -> None:
        self._podman = podman
        self._project = folder / f"stack-{os.getpid()}"
        self._project.mkdir()
        shutil.copy(_CHECKOUT / "docker-compose.yaml", self._project)
        for part in ("compose", "dags"):
            shutil.copytree(_CHECKOUT / part, self._project / part, ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run([str(self._project / "compose" / "make-env")], check=True, capture_output=True)
        lines = (self._project / ".env").read_text().splitlines()
        self.secrets = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
        self._port = free_port()
        self.airflow = AirflowApi(f"http://127.0.0.1:{self._port}", self.secrets["AIRFLOW_ADMIN_PASSWORD"])
        self.airflow.patience = PATIENCE
        self._ended = threading.Event()
        self._health = threading.Thread(target=self._check_health, daemon=True)

    def up(self, *options: str) -> None:
        """Start what is not there, and wait until every health check has found its container well."""
        if not self._health.is_alive():
            self._health.start()
        services = [name for name in self.compose("config", "--services").split() if name not in _UNTRIED]
        self.compose("up", "--detach", "--no-build", "--pull", "never", *options, *services)
        self.wait_for_health()
        wait_for(self.airflow.healthy, "The health of Airflow")

    def wait_for_health(self) -> None:
        """Wait until every health check has found its container well, and what does its work once has done it."""
        try:
            wait_for(lambda: set(self.health().values()) <= _WELL, "the health of every container")
        except AssertionError:
            raise AssertionError("\n\n".join(["Not healthy:", *map(self._told, self.containers())])) from None

    def down(self) -> None:
        """Remove it, with its volumes."""
        self._ended.set()
        self.airflow.close()
        self.compose("down", "--volumes", "--timeout", "5")

    def compose(self, *arguments: str) -> str:
        """Run `docker-compose …`, of Debian, and return what it wrote."""
        socket = self._podman.host.removeprefix("unix://")
        command = [
            *("podman", "run", "--rm", "--network", "none", "--env", f"DOCKER_HOST={self._podman.host}"),
            *("--env", f"AIRFLOW_PORT={self._port}", "--volume", f"{socket}:{socket}"),
            *("--volume", f"{self._project}:{self._project}", _COMPOSE),
            *("--project-directory", str(self._project), "--project-name", self._project.name, *arguments),
        ]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def containers(self, service: str | None = None) -> list[Container]:
        labels = [f"com.docker.compose.project={self._project.name}"]
        if service:
            labels.append(f"com.docker.compose.service={service}")
        found: list[Container] = self._podman.client.containers.list(
            all=True, filters={"label": labels}, ignore_removed=True
        )
        return found

    def health(self) -> dict[str, str]:
        """What the health check of each container says, or the exit status of one that has done its work."""
        return {container.name or "": self._state(container) for container in self.containers()}

    def _state(self, container: Container) -> str:
        state = container.attrs["State"]
        if state["Status"] == "exited":
            return f"exit {state['ExitCode']}"
        return str(state.get("Health", {}).get("Status", "no health check"))

    def _told(self, container: Container) -> str:
        """What is known of a container that may not be well."""
        state = self._state(container)
        if state in _WELL:
            return f"{container.name}: {state}"
        checks = container.attrs["State"].get("Health", {}).get("Log") or []
        last = container.logs(tail=15).decode(errors="replace")
        return f"{container.name}: {state}, checks {checks[-2:]}, last lines:\n{last}"

    def _check_health(self) -> None:
        """Podman has its health checks made by timers of systemd, which is not there in a container or a small VM."""
        due: dict[str, float] = {}
        with ThreadPoolExecutor(max_workers=3) as pool:
            while not self._ended.wait(3):
                # Containers may go while they are listed.
                with suppress(DockerException, RequestException, psutil.Error, subprocess.TimeoutExpired):
                    containers = self.containers()
                    self._keep_names(containers)
                    starts = {_start(each): each for each in containers if each.attrs["State"]["Status"] == "running"}
                    now = time.monotonic()
                    waiting = [start for start in starts if due.get(start, now) <= now]
                    pauses = pool.map(self._check, [starts[start] for start in waiting])
                    due |= {start: time.monotonic() + pause for start, pause in zip(waiting, pauses, strict=True)}

    def _keep_names(self, containers: list[Container]) -> None:
        """Podman's name server may end where many containers restart at once; a restart does not bring it back."""
        if any(process.name() == "aardvark-dns" for process in psutil.process_iter()):
            return
        running = [str(container.id) for container in containers if container.attrs["State"]["Status"] == "running"]
        if running:
            reload = ["podman", "network", "reload", running[0]]
            subprocess.run(reload, env=environment(), capture_output=True, check=False, timeout=45)

    def _check(self, container: Container) -> float:
        """Make the health check of a container, and return in how many seconds the next one is due."""
        began = time.monotonic()
        # Of one that is restarted it may never end, and the others are to have theirs nevertheless.
        with suppress(subprocess.TimeoutExpired):
            check = ["podman", "healthcheck", "run", str(container.id)]
            done = subprocess.run(check, env=environment(), capture_output=True, check=False, timeout=45)
            if done.returncode == 0:
                return float(container.attrs["Config"]["Healthcheck"]["Interval"]) / 1e9
        # Some checks start an Airflow: made one after the other, they would delay the start that they wait for.
        return time.monotonic() - began


def _start(container: Container) -> str:
    """A container and its last start: after a restart it is checked at once."""
    return f"{container.id} {container.attrs['State']['StartedAt']}"


def processes(container: Container) -> dict[str, psutil.Process]:
    """What runs in a container, by its command line."""
    found: dict[str, psutil.Process] = {}
    if pid := container.attrs["State"]["Pid"]:
        with suppress(psutil.NoSuchProcess):
            for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    found[" ".join(process.cmdline())] = process
    return found


@contextmanager
def running_stack(podman: Podman, folder: Path) -> Iterator[Stack]:
    stack = Stack(podman, folder)
    try:
        yield stack
    finally:
        stack.down()
