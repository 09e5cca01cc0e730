"""What a container uses, as its engine tells it.

Source: the Docker Engine API, `GET /containers/{id}/stats`. Podman answers it as well, but does not tell what of the
memory the kernel keeps of files: that is asked of the kernel.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from docker.models.containers import Container

from airflow_training.service.runners.process.cgroup_tree import INACTIVE_FILES, group_of, number_in
from airflow_training.service.runners.supervisor.usage import Sampler, Used
from airflow_training.service.runners.supervisor.usage_file import UsageFile

_MEGABYTE = 1024 * 1024
# Seconds between two looks whether it is time for a sample.
_TICK = 0.5


def keep_sampling(container: Container, state: Path, gpus: list[str]) -> None:
    """Keep samples of a container in the state folder of its job, for as long as this process lives."""
    sampler = Sampler(UsageFile(state).add, gpus)
    while True:
        # An engine that is away is asked again, and so is one that has other numbers: whatever it answers, no job is to
        # have that in its log.
        with contextlib.suppress(Exception):
            sampler.look(lambda: used(_stats(container)))
        time.sleep(_TICK)


def _stats(container: Container) -> dict[str, Any]:
    # Without `one_shot` Docker takes a second, to look twice.
    stats: dict[str, Any] = container.stats(stream=False, one_shot=True)  # type: ignore[assignment] # is no stream
    if not stats["memory_stats"].get("stats"):
        stats["memory_stats"]["stats"] = {"inactive_file": _files(container)}
    return stats


def _files(container: Container) -> int:
    """Bytes that the kernel keeps of files that were not used of late; 0 where it cannot be asked."""
    # Not by reload(): whoever follows the container reads what that would replace.
    engine = container.client.api  # type: ignore[union-attr] # it came from one
    process: int = engine.inspect_container(str(container.id))["State"]["Pid"]
    for version, name in INACTIVE_FILES.items():
        group = group_of(process, version, "memory")
        # The engine's machine may be another one, where another process has that number.
        if group and str(container.id) in str(group) and (files := number_in(group / "memory.stat", name)):
            return files
    return 0


def used(stats: Mapping[str, Any]) -> Used:
    """What an engine's numbers say, as `docker stats` reads them: a file that was not used of late is no memory.

    >>> used({"cpu_stats": {"cpu_usage": {"total_usage": 1500000000}}, "memory_stats": {"usage": 2097152}})
    Used(cpu_seconds=1.5, memory=2.0)
    """
    memory = stats["memory_stats"]
    files = memory.get("stats") or {}
    inactive = files.get(INACTIVE_FILES[1], files.get(INACTIVE_FILES[2], 0))
    seconds = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 10**9
    return Used(seconds, max(0, memory["usage"] - inactive) / _MEGABYTE)
