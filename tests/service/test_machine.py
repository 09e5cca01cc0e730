"""What a machine has, and what a job gets of it."""

from __future__ import annotations

import psutil
import pytest

from airflow_training.api.description import Execution
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.runners.runner import JobKey
from airflow_training.service.scheduling.capacity import detect
from airflow_training.service.scheduling.resources import Amount, wanted

CAPACITY = Amount(cpus=4, memory=8000, gpus=1)
PLANS = {"basic": Amount(1, 4096), "large": Amount(8, 32000, 2)}


def asked(**execution: object) -> Amount:
    read = Execution.model_validate({"command": "true", "completionTime": 60, **execution})
    return wanted(read, PLANS, CAPACITY)


@pytest.mark.parametrize(
    ("execution", "amount"),
    [
        ({"resources": {"cpus": 2, "gpus": 1, "memory": 32000}}, Amount(2, 32000, 1)),
        ({"resources": {"cpus": 2}}, Amount(2, 4000)),
        ({"resources": {"cpus": 100}}, Amount(100, 8000)),
        ({"resources": {}}, Amount(1, 2000)),
        ({"resources": None}, Amount(1, 2000)),
        ({}, Amount(1, 2000)),
        ({"resourcePlanId": "large"}, Amount(8, 32000, 2)),
        ({"resourcePlanId": "large", "resources": {"cpus": 2, "memory": 10}}, Amount(2, 10)),
        ({"resourcePlanId": ""}, Amount(1, 2000)),
    ],
)
def test_a_job_asks_by_resources_by_a_plan_or_by_neither(execution: dict[str, object], amount: Amount) -> None:
    assert asked(**execution) == amount


def test_an_unknown_plan_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidDescription, match="not known here, but basic, large: name one of these"):
        asked(resourcePlanId="huge")


def test_the_machine_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    machine = detect()
    assert machine.capacity.cpus == len(psutil.Process().cpu_affinity() or [])
    assert 0 < machine.capacity.memory < psutil.virtual_memory().total / 1024**2
    assert machine.take(JobKey("tenant", "id"), Amount(1, 1, 2)) == ("2", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert detect().capacity.gpus == 0


def test_what_is_configured_is_taken_for_true() -> None:
    assert detect(cpus=64, memory=1000, gpus=8).capacity == Amount(64, 1000, 8)
