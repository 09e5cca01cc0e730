"""Samples of a container's resource usage, as its engine reports it.

Source: the Docker Engine API, `GET /containers/{id}/stats`. Podman implements it without the size of the file cache,
which is read from the kernel.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from airflow_training.service.runners.process.cgroup import INACTIVE_FILES, group_of, number_in
from airflow_training.service.runners.supervisor.usage import Sampler, UsageFile, Used

_MEGABYTE = 1024 * 1024
# Seconds between checks whether a sample is due.
_TICK = 0.5


def keep_sampling(container: Container, state: Path, gpus: list[str]) -> None:
    """Write samples of a container to the run folder of its job until this process ends."""
    sampler = Sampler(UsageFile(state).add, gpus)
    while True:
        # An unreachable engine is asked again. Unexpected responses must not appear in the job's log.
        with contextlib.suppress(Exception):
            sampler.sample_if_due(lambda: used(_stats(container)))
        time.sleep(_TICK)


def _stats(container: Container) -> dict[str, Any]:
    # Without `one_shot`, Docker measures twice, a second apart.
    stats: dict[str, Any] = container.stats(stream=False, one_shot=True)  # type: ignore[assignment] # is no stream
    if not stats["memory_stats"].get("stats"):
        stats["memory_stats"]["stats"] = {"inactive_file": _inactive_file_bytes(container)}
    return stats


def _inactive_file_bytes(container: Container) -> int:
    """Bytes of the inactive file cache; 0 if unknown."""
    # reload() would replace attributes that another thread reads.
    engine = container.client.api  # type: ignore[union-attr] # it came from one
    pid: int = engine.inspect_container(str(container.id))["State"]["Pid"]
    for version, name in INACTIVE_FILES.items():
        group = group_of(pid, version, "memory")
        # If the engine runs on another machine, the process id belongs to another process here.
        if group and str(container.id) in str(group) and (files := number_in(group / "memory.stat", name)):
            return files
    return 0


def used(stats: Mapping[str, Any]) -> Used:
    """Convert an engine's statistics as `docker stats` does: the inactive file cache does not count as memory.

    >>> used({"cpu_stats": {"cpu_usage": {"total_usage": 1500000000}}, "memory_stats": {"usage": 2097152}})
    Used(cpu_seconds=1.5, memory=2.0)
    """
    memory = stats["memory_stats"]
    files = memory.get("stats") or {}
    inactive = files.get(INACTIVE_FILES[1], files.get(INACTIVE_FILES[2], 0))
    seconds = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 10**9
    return Used(seconds, max(0, memory["usage"] - inactive) / _MEGABYTE)
