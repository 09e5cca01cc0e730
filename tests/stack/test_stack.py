"""The stack of docker-compose.yaml as a team starts it: `make stack`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests

from airflow_training.local.airflow_api import USER
from tests.engines.compose import Stack, processes, running_stack
from tests.engines.podman import running_podman
from tests.patience import PATIENCE, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(4 * PATIENCE)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_podman() as podman, running_stack(podman, tmp_path_factory.mktemp("stack")) as stack:
        # The second node is for the job of one that dies.
        stack.up("--scale", "ray-worker=2")
        yield stack


def start(stack: Stack, dag_id: str) -> str:
    stack.airflow.unpause(dag_id)
    return stack.airflow.trigger(dag_id)


def lines(stack: Stack, dag_id: str, run: str, task_id: str = "train") -> str:
    log = stack.airflow.log(dag_id, run, task_id)
    errors = [str(detail["exc_value"]) for entry in log for detail in entry.get("error_detail") or []]
    return "\n".join([str(entry["event"]) for entry in log] + errors)


def test_every_service_has_a_health_check_and_is_healthy(stack: Stack) -> None:
    done = {name for name, state in stack.health().items() if state != "healthy"}
    assert {name.split("-", 2)[2] for name in done} == {"airflow-init-1", "training-init-1"}


def node_that_trains(stack: Stack) -> dict[str, psutil.Process]:
    """What runs on the node that has a training, by its command line."""
    nodes = [processes(container) for container in stack.containers("ray-worker")]
    return next((node for node in nodes if any(" train.py " in command for command in node)), {})


@pytest.fixture(scope="module")
def deployed(stack: Stack) -> str:
    """The run that trained and deployed a model."""
    run = start(stack, "train_and_deploy")
    state = stack.airflow.wait_for_run("train_and_deploy", run)
    failed = [task["task_id"] for task in stack.airflow.tasks("train_and_deploy", run) if task["state"] == "failed"]
    assert state == "success", [lines(stack, "train_and_deploy", run, task_id) for task_id in failed]
    return run


def test_a_model_is_trained_on_the_cluster_and_published_where_serving_looks(stack: Stack, deployed: str) -> None:
    assert "test accuracy" in lines(stack, "train_and_deploy", deployed)
    assert stack.airflow.xcom("train_and_deploy", deployed, "deployment.deploy") == 1
    (worker,) = stack.containers("airflow-worker")
    found = worker.exec_run(["ls", "-ln", "/opt/airflow/models/census/1"])
    assert b"saved_model.pb" in found.output, found.output
    assert b"-rw-r--r--" in found.output, "Serving is another user"


def on_the_page(stack: Stack, what: str, **query: str) -> Any:
    """What a page of the trainings in Airflow is told."""
    login = {"username": USER, "password": stack.airflow.password}
    token = requests.post(f"{stack.airflow.url}/auth/token", json=login, timeout=PATIENCE).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    reply = requests.get(f"{stack.airflow.url}/training/api/{what}", params=query, headers=headers, timeout=PATIENCE)
    assert reply.ok, reply.text
    return reply.json()


def test_a_training_on_the_cluster_is_seen_in_airflow(stack: Stack, deployed: str) -> None:
    task = {"dag_id": "train_and_deploy", "run_id": deployed, "task_id": "train"}
    job = on_the_page(stack, "job", **task)["job"]
    assert job["status"] == "SUCCEEDED"
    assert any(len(curve["points"]) > 1 for curve in on_the_page(stack, "metrics", **task)["curves"])
    assert max(sample["memory"] for sample in on_the_page(stack, "usage", **task)["samples"]) > 100
    signatures = on_the_page(stack, "model", **task)["model"]["signatures"]
    assert "serving_default" in [signature["name"] for signature in signatures]
    trainings = on_the_page(stack, "trainings", dag_id="train_and_deploy")["trainings"]
    assert [training["deployed"] for training in trainings if training["job_id"] == job["job_id"]] == [True]
    listed = on_the_page(stack, "jobs", conn_id="training_default")
    assert job["job_id"] in [each["job_id"] for each in listed["jobs"]]
    assert listed["connections"] == ["training_default"]


def test_a_node_that_dies_while_it_trains_fails_the_task_with_the_reason(stack: Stack) -> None:
    run = start(stack, "train_census")
    wait_for(lambda: bool(node_that_trains(stack)), "The training")
    (raylet,) = [process for process in node_that_trains(stack).values() if process.name() == "raylet"]
    raylet.kill()

    assert stack.airflow.wait_for_run("train_census", run) == "failed"
    assert "Ray lost the job: " in lines(stack, "train_census", run)

    stack.wait_for_health()
    again = start(stack, "train_census")
    assert stack.airflow.wait_for_run("train_census", again) == "success"


def test_a_training_outlives_a_restart_of_everything_but_its_node(stack: Stack) -> None:
    run = start(stack, "train_census")
    wait_for(lambda: bool(node_that_trains(stack)), "The training")
    parts = ("airflow-triggerer", "airflow-scheduler", "airflow-api-server", "airflow-worker", "training", "s3")
    stack.compose("restart", "postgres", *parts)
    stack.wait_for_health()
    assert stack.airflow.wait_for_run("train_census", run) == "success"
    assert lines(stack, "train_census", run).count("test accuracy") == 1


def test_what_was_trained_is_there_after_the_stack_was_started_anew(stack: Stack, deployed: str) -> None:
    stack.compose("down", "--timeout", "20")
    stack.up()
    assert "test accuracy" in lines(stack, "train_and_deploy", deployed)
    assert stack.airflow.wait_for_run("train_and_deploy", deployed) == "success"
    (training,) = stack.containers("training")
    listed = training.exec_run(["airflow-training", "clients", "list", "--json"])
    assert b'"client_id": "airflow"' in listed.output, listed.output


def test_a_job_finds_neither_the_databases_nor_the_store(stack: Stack) -> None:
    code = """
import socket
for name in ("postgres", "redis", "s3", "airflow-api-server", "training"):
    try:
        socket.getaddrinfo(name, None)
        print(name)
    except OSError:
        pass
"""
    for node in stack.containers("ray-worker"):
        assert node.exec_run(["python", "-c", code]).output == b"training\n"


def test_no_secret_is_in_a_log_or_in_a_list_of_processes(stack: Stack) -> None:
    said = b"".join(container.logs() for container in stack.containers())
    commands = "\n".join(command for container in stack.containers() for command in processes(container))
    told = [name for name, secret in stack.secrets.items() if secret.encode() in said or secret in commands]
    assert told == []
