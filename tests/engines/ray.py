"""A real Ray cluster for the tests: a head and, where a test asks for it, more nodes of this same machine."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

from airflow_training.local.process import LocalProcess, end_processes_in, free_port
from tests.patience import wait_for

_MISSING = "Ray is needed: run `make engines`."


class RayNode:
    """A node: what `ray start` starts, each in a process of its own."""

    def __init__(self, folder: Path, name: str, *options: str) -> None:
        self._folder = folder
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self._process = LocalProcess(
            [
                *(
                    str(Path(sys.executable).with_name("ray")),
                    "start",
                    "--block",
                    "--disable-usage-stats",
                    "--node-ip-address",
                    "127.0.0.1",
                ),
                *("--min-worker-port", "0", "--max-worker-port", "0"),
                *("--dashboard-agent-listen-port", str(free_port()), "--object-store-memory", str(80 * 1024 * 1024)),
                *options,
            ],
            folder=folder,
            name=name,
            env=environment,
        )

    def start(self) -> None:
        self._process.start()

    def check(self) -> None:
        self._process.check()

    def stop(self) -> None:
        """End it as a machine does that shuts down."""
        self._process.stop()

    def raylet(self) -> psutil.Process:
        """What Ray needs to go on on this node."""
        children = psutil.Process(self._process.pid).children(recursive=True)
        return next(child for child in children if child.name() == "raylet")


class RayCluster:
    """A cluster; its first node is the head, which tells of all of them."""

    def __init__(self) -> None:
        # Ray's sockets lie below its folder, and a socket's path is limited to about a hundred characters.
        self._folder = Path(tempfile.mkdtemp(prefix="ray-"))
        self._port = free_port()
        dashboard = free_port()
        self.address = f"http://127.0.0.1:{dashboard}"
        self._head_options = (
            *("--head", "--port", str(self._port), "--temp-dir", str(self._folder / "ray")),
            *("--dashboard-port", str(dashboard), "--ray-client-server-port", str(free_port())),
        )
        self._nodes: list[RayNode] = []

    def options(self) -> tuple[str, ...]:
        """What a service needs to use it; each gets a port of its own for its storage."""
        return ("--ray-address", self.address, "--storage-port", str(free_port()))

    def start(self, cpus: int, *options: str) -> None:
        """Start the head."""
        self._add("head", *self._head_options, "--num-cpus", str(cpus), *options)
        self._wait_for(self._nodes[0], set(), "Ray")

    def add_node(self, cpus: int, *options: str) -> RayNode:
        before = self._alive()
        node = self._add(
            f"node{len(self._nodes)}", "--address", f"127.0.0.1:{self._port}", "--num-cpus", str(cpus), *options
        )
        self._wait_for(node, before, "A node of Ray")
        return node

    def _wait_for(self, node: RayNode, before: set[str], what: str) -> None:
        def came() -> bool:
            node.check()
            return bool(self._alive() - before)

        wait_for(came, what)

    def _alive(self) -> set[str]:
        """The ids of the nodes that are alive, as far as Ray knows."""
        try:
            found = httpx.get(f"{self.address}/api/v0/nodes").json()["data"]["result"]["result"]
        except (httpx.TransportError, ValueError, KeyError):
            return set()
        return {node["node_id"] for node in found if node["state"] == "ALIVE"}

    def stop(self) -> None:
        """End every node, and leave nothing behind."""
        for node in reversed(self._nodes):
            node.stop()
        self._nodes = []
        # What a node that was killed has left behind.
        end_processes_in(self._folder)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _add(self, name: str, *options: str) -> RayNode:
        node = RayNode(self._folder, name, *options)
        self._nodes.append(node)
        node.start()
        return node


@contextmanager
def running_ray(cpus: int = 4, cluster: RayCluster | None = None) -> Iterator[RayCluster]:
    """Run a cluster of one node; skips where Ray is not installed."""
    if not importlib.util.find_spec("ray"):
        pytest.skip(_MISSING)
    cluster = cluster or RayCluster()
    try:
        cluster.start(cpus)
        yield cluster
    finally:
        cluster.stop()
