"""One event loop with triggers of one kind, as Airflow's triggerer runs them.

`python -m benchmarks.parts.one_loop KIND NUMBER SECONDS`, with the connection in `AIRFLOW_CONN_BENCHMARK`, prints a
line when the measurement begins, then the CPU time of this process and its duration, and finally the longest stall of
the loop in another period of the same length.

Each trigger runs in Airflow's `TriggerRunner.run_trigger`; for `following` there are no triggers, and the jobs are
followed as triggers do. Only Airflow's supervisor, which answers requests of triggers such as for an XCom, is replaced
by one that answers at once. The log is dropped by its level; for `training_with_log` it goes as JSON into a socket, as
in the triggerer, which another process reads.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from pkgutil import resolve_name
from typing import Any
from uuid import uuid4

from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.jobs.triggerer_job_runner import TriggerRunner
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import GetXCom, OKResponse, SetXCom, XComResult
from airflow.sdk.log import configure_logging, reset_logging

from airflow_training.client.follow.watcher import Watcher
from airflow_training.following.deadlines import Limits
from airflow_training.triggers.shared_watcher import shared_watcher
from benchmarks.parts.running_jobs import job_id
from benchmarks.parts.stall import longest_stall

CONNECTION = "benchmark"
SETTLE, PATIENCE = 5.0, 300.0


class InstantSupervisor:
    """Replaces Airflow's supervisor: has no XComs, and accepts each.

    Args:
        number: Number of tasks.

    Attributes:
        all_stored: Set when each task has stored an XCom.
    """

    def __init__(self, number: int) -> None:
        self.all_stored = asyncio.Event()
        self._waiting: set[int | None] = set(range(number))

    def send(self, message: object) -> object:
        """Answer."""
        if isinstance(message, SetXCom):
            self._waiting.discard(message.map_index)
            if not self._waiting:
                self.all_stored.set()
        return XComResult(key=message.key, value=None) if isinstance(message, GetXCom) else OKResponse(ok=True)

    async def asend(self, message: object) -> object:
        """Answer on an event loop."""
        return self.send(message)


def arguments(kind: str, index: int) -> tuple[str, dict[str, Any]]:
    """The class of a trigger and its arguments: one check a second."""
    later = datetime.now(timezone.utc) + timedelta(days=1)
    each_second = {"end_time": later.timestamp(), "poll_interval": 1, "conn_id": CONNECTION}
    if kind == "databricks":
        name = "airflow.providers.databricks.triggers.databricks.DatabricksExecutionTrigger"
        return name, {"run_id": index, "databricks_conn_id": CONNECTION, "polling_period_seconds": 1}
    if kind == "dbt_cloud":
        name = "airflow.providers.dbt.cloud.triggers.dbt.DbtCloudRunJobTrigger"
        return name, {"run_id": index, "account_id": 1, **each_second}
    if kind == "airbyte":
        return "airflow.providers.airbyte.triggers.airbyte.AirbyteSyncTrigger", {"job_id": index, **each_second}
    limits = Limits(datetime.now(timezone.utc), deadline=later).to_dict()
    name = "airflow_training.triggers.training.TrainingTrigger"
    return name, {"training_conn_id": CONNECTION, "job_id": job_id(index), "version": None, "limits": limits}


def start(runner: TriggerRunner, kind: str, index: int) -> None:
    """Start a trigger as `TriggerRunner.create_triggers` does."""
    classpath, kwargs = arguments(kind, index)
    trigger = runner.get_trigger_by_classpath(classpath)(**kwargs)
    trigger_id, name = index + 1, f"benchmark/{index}"
    trigger.trigger_id = trigger_id
    trigger.task_instance = TaskInstanceDTO(  # type: ignore[assignment] # as Airflow itself does
        id=uuid4(),
        dag_version_id=uuid4(),
        dag_id="benchmark",
        task_id="train",
        run_id="run",
        map_index=index,
        try_number=1,
        pool_slots=1,
        priority_weight=1,
    )
    task = asyncio.create_task(runner.run_trigger(trigger_id, trigger))
    runner.triggers[trigger_id] = {"task": task, "is_watcher": False, "name": name, "events": 0}


async def measure_triggers(kind: str, number: int, seconds: float) -> None:
    """Run triggers, and measure once all are at work."""
    supervisor = task_runner.SUPERVISOR_COMMS = InstantSupervisor(number)  # type: ignore[assignment] # the stand-in
    runner = TriggerRunner()
    for index in range(number):
        start(runner, kind, index)
    # The trigger of a training stores the first status that it gets.
    if kind.startswith("training"):
        await asyncio.wait_for(supervisor.all_stored.wait(), PATIENCE)
    await measure(seconds)
    if ended := [
        details["name"] for details in runner.triggers.values() if details["task"].done() or details["events"]
    ]:
        raise RuntimeError(f"{len(ended)} triggers have ended: {list(runner.events) or ended}")


async def measure_following(number: int, seconds: float) -> None:
    """Follow jobs as triggers do, without triggers: their lines are read and dropped."""
    task_runner.SUPERVISOR_COMMS = InstantSupervisor(number)  # type: ignore[assignment] # the stand-in

    async def follow(watcher: Watcher, index: int, first: asyncio.Semaphore) -> None:
        with watcher.subscribe(job_id(index), 0, lambda update: None) as subscription:
            await subscription.changed()
            first.release()
            await subscription.changed()

    async with shared_watcher(CONNECTION, None) as watcher:
        followed = asyncio.Semaphore(0)
        tasks = [asyncio.create_task(follow(watcher, index, followed)) for index in range(number)]
        for _ in range(number):
            await asyncio.wait_for(followed.acquire(), PATIENCE)
        await measure(seconds)
        if ended := [task for task in tasks if task.done()]:
            raise RuntimeError(f"{len(ended)} jobs have ended, or were given up.")


async def measure(seconds: float) -> None:
    """Measure the loop."""
    await asyncio.sleep(SETTLE)
    print("begin", flush=True)
    cpu, began = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    print(json.dumps({"cpu": time.process_time() - cpu, "seconds": time.monotonic() - began}), flush=True)
    # Not at the same time: measuring stalls costs as much as following many jobs.
    print(json.dumps({"stall": await longest_stall(seconds)}), flush=True)


def use_plain_http() -> None:
    """Make dbt Cloud's hook use plain HTTP as the others do: it supports only HTTPS, with a new session each time."""
    hook = resolve_name("airflow.providers.dbt.cloud.hooks.dbt:DbtCloudHook")

    def url_and_parameters(tenant: str, endpoint: str, *_: object) -> tuple[str, dict[str, Any]]:
        return f"http://{tenant}/api/v2/accounts/{endpoint}", {}

    hook.get_request_url_params = staticmethod(url_and_parameters)


def main(kind: str, number: int, seconds: float) -> None:
    """Prepare the log and the connection, measure, and print."""
    reset_logging()
    if kind == "training_with_log":
        ours, theirs = socket.socketpair()
        subprocess.Popen(["cat"], stdin=theirs.fileno(), stdout=subprocess.DEVNULL)
        configure_logging(json_output=True, output=ours.makefile("wb", buffering=0), sending_to_supervisor=True)
    else:
        configure_logging(json_output=True, log_level="CRITICAL", output=sys.stderr.buffer, sending_to_supervisor=True)
    if kind == "dbt_cloud":
        use_plain_http()
    loop = asyncio.new_event_loop()
    if kind == "following":
        loop.run_until_complete(measure_following(number, seconds))
    else:
        loop.run_until_complete(measure_triggers(kind, number, seconds))
    # The triggers never end, and canceling them takes long.
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
