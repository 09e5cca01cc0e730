"""A real container engine for the tests: Podman, which speaks Docker's API on a socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
import pytest
import yaml
from docker.errors import NotFound

from airflow_training.local.process import LocalProcess, free_port
from tests.engines.listening import listens
from tests.patience import wait_for

IMAGE = "localhost/airflow-training-debian:13"
"""Debian with a Python; `make engines` makes it."""

_CONFIGURATION = Path(__file__).with_name("containers.conf")
_MISSING = "A container engine is needed: run `make engines` as root, on Debian."


class Podman:
    """An engine that a test may stop and start; its containers do not notice."""

    def __init__(self, folder: Path) -> None:
        self._socket = folder / "podman.sock"
        self.host = f"unix://{self._socket}"
        # By its version, it asks for nothing before the engine is there.
        self.client = docker.DockerClient(self.host, version="1.41")
        self._registry = f"127.0.0.1:{free_port()}"
        registries = folder / "registries.conf"
        registries.write_text(f'[[registry]]\nlocation = "{self._registry}"\ninsecure = true\n')
        self._folder = folder
        self._environment = environment(CONTAINERS_REGISTRIES_CONF=str(registries))
        self._process = LocalProcess(
            ["podman", "system", "service", "--time", "0", self.host],
            folder=folder,
            name="podman",
            env=self._environment,
        )

    @property
    def environment(self) -> dict[str, str]:
        """What a service needs to find it."""
        return {"DOCKER_HOST": self.host}

    def start(self) -> None:
        self._socket.unlink(missing_ok=True)
        self._process.start()
        wait_for(self._answers, "An answer of Podman")

    def stop(self) -> None:
        self._process.stop()

    def close(self) -> None:
        self.stop()
        self.client.close()

    def hang(self) -> None:
        """Have it accept requests and answer none."""
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self._process.pid, signal.SIGCONT)

    def containers(self, data: Path) -> set[str]:
        """The names of the containers of the service that has this data folder."""
        # Without asking for each: one of another test may be removed meanwhile.
        found = self.client.api.containers(all=True, filters={"label": "airflow-training.state"})
        ours = [one for one in found if one["Labels"]["airflow-training.state"].startswith(str(data))]
        return {one["Names"][0].lstrip("/") for one in ours}

    def remove_containers(self, data: Path) -> None:
        for name in self.containers(data):
            with suppress(NotFound):
                self.client.api.remove_container(name, force=True)

    @contextmanager
    def image_elsewhere(self, name: str) -> Iterator[str]:
        """The image by another name, in a registry and not in the engine."""
        configuration = self._folder / "registry.yml"
        storage = {"filesystem": {"rootdirectory": str(self._folder / "registry")}}
        document = {"version": "0.1", "storage": storage, "http": {"addr": self._registry}, "log": {"level": "error"}}
        configuration.write_text(yaml.safe_dump(document))
        command = ["docker-registry", "serve", str(configuration)]
        registry = LocalProcess(command, folder=self._folder, name="registry", env=os.environ)
        image = f"{self._registry}/{name}"
        registry.start()
        try:
            host, _, port = self._registry.partition(":")
            wait_for(lambda: listens((host, int(port))), "The registry")
            push = ["podman", "push", "--quiet", IMAGE, image]
            subprocess.run(push, env=self._environment, check=True, capture_output=True)
            yield image
            self.client.images.remove(image)
        finally:
            registry.stop()

    def _answers(self) -> bool:
        self._process.check()
        # Docker's SDK does not close a socket that it could not connect.
        return listens(str(self._socket)) and bool(self.client.ping())


def environment(**more: str) -> dict[str, str]:
    """What `podman` needs, on a machine without systemd."""
    return {**os.environ, "CONTAINERS_CONF": str(_CONFIGURATION), "DISABLE_HC_SYSTEMD": "true", **more}


@contextmanager
def running_podman() -> Iterator[Podman]:
    """Run an engine; skips where there is none."""
    if os.getuid() != 0 or not (shutil.which("podman") and shutil.which("docker-registry")):
        pytest.skip(_MISSING)
    if subprocess.run(["podman", "image", "exists", IMAGE], env=environment(), check=False).returncode:
        pytest.skip(_MISSING)
    # A socket's path is limited to about a hundred characters; pytest's folders have longer ones.
    with tempfile.TemporaryDirectory(prefix="podman-") as folder:
        podman = Podman(Path(folder))
        try:
            podman.start()
            yield podman
        finally:
            podman.close()
