"""`airflow-training rerun`, and what `status` and `download --all` show of a job's description."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from airflow_training.client.client import TrainingClient
from airflow_training.exceptions import RequestRejected
from tests.cli.commands import Command
from tests.client.faulty import FaultyService, answer

COMMAND = ': pip3 install -r requirements.txt; cat given.txt; echo "$EPOCHS" --epochs=5'


@pytest.fixture
def job(command: Command, tmp_path: Path) -> str:
    """A job that has ended."""
    (tmp_path / "given.txt").write_text("hello\n")
    execution = {"command": COMMAND, "image": "python:3.12", "completionTime": "10m", "resources": {"memory": 256}}
    env = [{"name": "EPOCHS", "value": 5}, {"name": "HF_TOKEN", "value": "hf_abcdef"}]
    file = tmp_path / "job.yaml"
    description = {"name": "by-hand", "env": env, "execution": execution}
    file.write_text(json.dumps({"job": description, "files": {"given.txt": "given.txt"}}))
    done = command("submit", str(file), "--json")
    job_id: str = done.json["job_id"]
    assert command("logs", "--follow", job_id).code == 0
    return job_id


def test_a_job_runs_again_with_other_variables_and_resources(command: Command, job: str) -> None:
    done = command("rerun", job, "--env", "EPOCHS=7", "--memory", "300", "--name", "again", "--follow")

    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if "[service]" not in line][-2:] == ["hello", "7 --epochs=7"]
    assert "Upload" not in done.err
    new_id = done.err.splitlines()[0].removeprefix("Submitting the job ")
    status = command("status", new_id, "--json").json
    assert (status["name"], status["rerunOf"], status["resources"]["memory"]) == ("again", job, 300)
    assert "hf_abcdef" not in done.out


def test_the_status_has_what_was_submitted_without_secrets(command: Command, job: str) -> None:
    status = command("status", job, "--json")

    assert {name: status.json[name] for name in ("image", "command", "environment", "resources")} == {
        "image": "python:3.12",
        "command": COMMAND,
        "environment": {"EPOCHS": "5", "HF_TOKEN": "***"},
        "resources": {"cpus": 1, "gpus": 0, "memory": 256},
    }
    assert status.json["status"] == "SUCCEEDED"
    assert "hf_abcdef" not in status.out


def test_the_line_of_a_download_runs_the_job_here(command: Command, job: str, tmp_path: Path) -> None:
    target = tmp_path / "it's here"

    done = command("download", job, str(target), "--all")

    *_, remark, line = done.err.splitlines()
    assert remark == "To run it here; write its secrets in place of ***:"
    assert "'HF_TOKEN=***'" in line
    ran = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert ran.stdout == "hello\n5 --epochs=5\n"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--env", "EPOCHS"), 2, "--env takes NAME=VALUE."),
        (("--completion-time", "soon"), 1, "is not a time such as"),
        (("--name", "a b"), 1, "name: string should match pattern"),
    ],
)
def test_an_invalid_change_is_reported_in_a_sentence(
    command: Command, job: str, words: tuple[str, ...], code: int, said: str
) -> None:
    done = command("rerun", job, *words)

    assert (done.code, done.out) == (code, "")
    assert said in done.err


def test_an_unknown_job_cannot_run_again(command: Command) -> None:
    done = command("rerun", "unknown")

    assert done.code == 1
    assert "does not know the job unknown" in done.err


@pytest.mark.anyio
async def test_a_service_without_the_extension_has_todays_fields_and_cannot_rerun() -> None:
    known = answer(200, '{"job_id": "a", "name": "a", "status": "SUCCEEDED"}')
    unknown = answer(404, '{"error": {"code": "404", "message": "nothing here"}}')

    async with FaultyService([unknown]).running() as settings, TrainingClient(settings) as client:
        assert await client.description("a") is None
    async with FaultyService([unknown, known]).running() as settings, TrainingClient(settings) as client:
        with pytest.raises(RequestRejected, match="does not have this extension"):
            await client.rerun("a", "b")
