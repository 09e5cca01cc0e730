"""The capacity of a machine, and the resources that a job requests."""

from __future__ import annotations

import psutil
import pytest

from airflow_training.api.description import Execution
from airflow_training.api.resources import Resources
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.scheduling.capacity import detect
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.scheduling.resources import requested_resources

CAPACITY = Resources(cpus=4, memory=8000, gpus=1)
PLANS = {"basic": Resources(1, 4096, 0), "large": Resources(8, 32000, 2)}


def requested(**execution: object) -> Resources:
    read = Execution.model_validate({"command": "true", "completionTime": 60, **execution})
    return requested_resources(read, PLANS, CAPACITY)


@pytest.mark.parametrize(
    ("execution", "resources"),
    [
        ({"resources": {"cpus": 2, "gpus": 1, "memory": 32000}}, Resources(2, 32000, 1)),
        ({"resources": {"cpus": 2}}, Resources(2, 4000, 0)),
        ({"resources": {"cpus": 100}}, Resources(100, 8000, 0)),
        ({"resources": {}}, Resources(1, 2000, 0)),
        ({"resources": None}, Resources(1, 2000, 0)),
        ({}, Resources(1, 2000, 0)),
        ({"resourcePlanId": "large"}, Resources(8, 32000, 2)),
        ({"resourcePlanId": "large", "resources": {"cpus": 2, "memory": 10}}, Resources(2, 10, 0)),
        ({"resourcePlanId": ""}, Resources(1, 2000, 0)),
    ],
)
def test_a_job_requests_resources_by_its_description_by_a_plan_or_by_neither(
    execution: dict[str, object], resources: Resources
) -> None:
    assert requested(**execution) == resources


def test_an_unknown_plan_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidDescription, match=r"is unknown; known plans: basic, large\. Use one of these"):
        requested(resourcePlanId="huge")


def test_the_capacity_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    capacity = detect()
    assert capacity.total.cpus == len(psutil.Process().cpu_affinity() or [])
    assert 0 < capacity.total.memory < psutil.virtual_memory().total / 1024**2
    assert capacity.allocate(JobKey("tenant", "id"), Resources(1, 1, 2)) == ("2", "3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert detect().total.gpus == 0


def test_a_configured_capacity_is_not_checked() -> None:
    assert detect(cpus=64, memory=1000, gpus=8).total == Resources(64, 1000, 8)
