"""The records of a run folder: what one version of the service writes, another one reads or refuses."""

from __future__ import annotations

import json
import re
from datetime import datetime, timezone
from pathlib import Path

import pytest

from airflow_training.api.status import JobState
from airflow_training.service.runners.process.runner import ProcessRunner
from airflow_training.service.runners.run_folder import (
    ContainerSpec,
    Exit,
    JobLimits,
    Outcome,
    RaySpec,
    Spec,
    Started,
    Submission,
    SupervisorRecord,
    UnreadableRecord,
    boot_id,
    try_lock,
)
from airflow_training.service.runners.supervisor import supervisor
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.bucket import open_buckets

NOW = datetime(2026, 11, 30, 12, 0, 0, 5, tzinfo=timezone.utc)
LIMITS = JobLimits(cpus=2, memory=4000, disk=1000, log=10**6, seconds=3600.5)
SPEC = Spec("true", {"A": "b"}, ["s3cr3t"], {"folder": "/data"}, LIMITS, ["0"], retries=1, runner="process")
CONTAINER = ContainerSpec(image="python:3", mount="/data/x", engine={"DOCKER_HOST": "unix:///x"}, labels={"job": "1"})
RAY = RaySpec("team", "1", "http://head:8265", {"Cookie": "x"}, "http://s3", "bucket", "x", "/keys", {"type": "s3"})
SUPERVISOR = SupervisorRecord(pid=1, number=1, attempt=1, boot_id=boot_id(), at=1795594084.81)
RECORDS = [
    SPEC,
    Spec(
        "true",
        {},
        [],
        {},
        JobLimits(1, 1, 1, 1, None),
        [],
        0,
        "container",
        container=CONTAINER,
        notes=["a note"],
        model="*.pt",
    ),
    Spec("true", {}, [], {}, LIMITS, [], 0, "ray", ray=RAY, supervisor=2, ended_early=1, attempt=3),
    SUPERVISOR,
    Started("process-1", NOW, attempt=1),
    Outcome("SUCCEEDED", exit_code=0),
    Outcome("FAILED", "out of memory"),
    Exit(state="CANCELED", message="canceled on request", started=None, finished=NOW, log_bytes=0),
    Exit(state="FAILED", message="", exit_code=-9, started=NOW, finished=NOW, log_bytes=7),
    Submission("1-abcd", "key", attempt=1, accepted=True),
]
KEY = JobKey("team", "1")


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_is_read_as_it_was_written(tmp_path: Path, record: Spec) -> None:
    assert not type(record).exists(tmp_path)
    assert type(record).find(tmp_path) is None
    record.write(tmp_path)
    assert type(record).exists(tmp_path)
    assert type(record).read(tmp_path) == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_field_of_a_later_version_is_ignored(record: Spec) -> None:
    assert type(record).from_json(json.dumps({**json.loads(record.to_json()), "later": [1]}).encode()) == record


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"null", b'{"version": 1}', b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_an_error_with_a_code(tmp_path: Path, record: Spec, damage: bytes) -> None:
    (tmp_path / record.FILE).write_bytes(damage)
    with pytest.raises(UnreadableRecord, match=rf"its {record.FILE} is damaged: .* \[AT-467\]"):
        type(record).find(tmp_path)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"retries": "1"}, "got `str` - at `$.retries`"),
        ({"retries": True}, "got `bool` - at `$.retries`"),
        ({"retries": None}, "got `null` - at `$.retries`"),
        ({"env": {"A": 1}}, "got `int` - at `$.env[...]`"),
        ({"gpus": ["0", 1]}, "got `int` - at `$.gpus[1]`"),
        ({"runner": "slurm"}, "at `$.runner`"),
        ({"limits": {"cpus": 1}}, "missing required field `memory` - at `$.limits`"),
        ({"version": 2}, "its version is 2, not 1"),
        ({"version": None}, "its version is None, not 1"),
    ],
)
def test_what_is_wrong_with_a_record_is_named(changed: dict[str, object], named: str) -> None:
    with pytest.raises(UnreadableRecord, match=re.escape(named)):
        Spec.from_json(json.dumps({**json.loads(SPEC.to_json()), **changed}).encode())


def test_a_record_that_must_be_there_and_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnreadableRecord, match=r"spec\.json is damaged: it is missing"):
        Spec.read(tmp_path)


def of_another_version(folder: Path) -> tuple[ProcessRunner, Path]:
    """A service, and the run folder of a job that another version of it started."""
    data = DataFolder.at(folder)
    state = data.job_state(*KEY)
    state.mkdir(parents=True)
    SUPERVISOR.write(state)
    (state / Spec.FILE).write_bytes(SPEC.to_json().replace(b'"version":1', b'"version":2'))
    return ProcessRunner(data, open_buckets(data), disk=1, log=1), state


def test_a_job_of_another_version_ends_when_its_supervisor_did(tmp_path: Path) -> None:
    runner, state = of_another_version(tmp_path)
    with try_lock(state):
        assert runner.progress(KEY).state == JobState.PENDING, "its supervisor goes on"
        runner.cancel(KEY)
    progress = runner.progress(KEY)
    assert progress.state == JobState.FAILED
    assert progress.finished
    assert progress.message == (
        "the job was started by another version of the service, or its spec.json is damaged: its version is 2,"
        " not 1 [AT-467]"
    )
    Exit(state="SUCCEEDED", started=NOW, finished=NOW, log_bytes=0).write(state)
    assert runner.progress(KEY).state == JobState.SUCCEEDED, "its own supervisor brought it to its end"


def test_a_job_whose_supervisor_writes_other_records_runs_on(tmp_path: Path) -> None:
    runner, state = of_another_version(tmp_path)
    (state / Started.FILE).write_text('{"holder": "process-1", "started": "2026-11-30T12:00:00+00:00", "attempt": 1}')
    with try_lock(state):
        progress = runner.progress(KEY)
    assert progress.state == JobState.RUNNING
    assert "another version" in progress.message
    assert runner.progress(KEY).state == JobState.FAILED


def test_a_supervisor_ends_a_job_of_another_version(tmp_path: Path) -> None:
    _, state = of_another_version(tmp_path)
    supervisor.main(state)
    ended = Exit.read(state)
    assert (ended.state, ended.log_bytes) == ("FAILED", 0)
    assert "[AT-467]" in ended.message
    supervisor.main(state)
    assert Exit.read(state) == ended
