"""`TrainingOperator.validate`: what a training would send, without a service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG, task

from airflow_training.decorators.training import training_task
from airflow_training.exceptions import InvalidParameters
from airflow_training.operators.training import TrainingOperator

MINIMAL: dict[str, Any] = {"job_name": "a", "image": "i", "completion_time": "1h"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print(1)")
    (tmp_path / "prices.csv").write_text("1,2,3")
    return tmp_path


def training(folder: Path, **values: Any) -> TrainingOperator:
    with DAG("trainings", schedule=None) as dag:
        dag.fileloc = str(folder / "dag.py")
        return TrainingOperator(task_id="train", **MINIMAL | {"script": "train.py"} | values)


def test_command_files_and_description_are_those_of_a_run(folder: Path) -> None:
    task = training(folder, data={"prices.csv": "prices.csv", "b": b"12"}, env={"EPOCHS": 5}, requirements="numpy")

    sent = task.validate()

    assert sent.command == "pip3 install -r requirements.txt && python3 train.py --epochs=5"
    assert sent.files == {"train.py": 8, "requirements.txt": 5, "prices.csv": 5, "b": 2}
    assert not sent.unknown
    assert sent.description
    assert sent.description.execution.command == sent.command


def test_templates_are_rendered_with_a_context_and_the_task_is_not_changed(folder: Path) -> None:
    task = training(
        folder,
        job_name="train-{{ ds }}",
        resources={"cpus": "{{ params.cpus }}"},
        config={"args": ["--day", "{{ ds }}"]},
    )

    sent = task.validate({"ds": "2026-01-01", "params": {"cpus": 2}})

    assert sent.command == "python3 train.py --day 2026-01-01"
    assert sent.description
    assert (sent.description.name, sent.description.execution.resources.cpus) == ("train-2026-01-01", 2)  # type: ignore[union-attr]
    assert (task.job_name, task.config) == ("train-{{ ds }}", {"args": ["--day", "{{ ds }}"]})


def test_the_errors_are_those_of_a_run(folder: Path) -> None:
    task = training(folder, resources={"cpus": "{{ params.cpus }}"}, data={"a.csv": "a.csv"})

    with pytest.raises(InvalidParameters) as raised:
        task.validate({"params": {"cpus": "many"}})

    assert raised.value.errors == (
        "resources.cpus must be a whole number, 1 or more, not 'many'",
        f"data 'a.csv' does not exist: {folder / 'a.csv'}",
    )


def test_what_is_known_at_run_time_only_is_named_and_the_rest_is_checked(folder: Path) -> None:
    with DAG("trainings", schedule=None) as dag:
        dag.fileloc = str(folder / "dag.py")

        @task
        def found() -> Any: ...

        later: Any = found()
        one = TrainingOperator(
            task_id="train",
            **MINIMAL | {"job_name": "train-{{ ds }}"},
            script="train.py",
            data={"later.csv": later, "prices.csv": "prices.csv"},
            env={"RATE": later, "EPOCHS": 5},
            resources={"cpus": "{{ params.cpus }}"},
            model_destination="{{ params.models }}",
        )

    sent = one.validate({"params": {"cpus": 1, "models": "/models/a"}, "ds": "2026-01-01"})

    assert sent.unknown == ["env", "data 'later.csv'"]
    assert sent.files == {"train.py": 8, "later.csv": None, "prices.csv": 5}
    assert "--epochs=5" in sent.command
    assert "xcom_pull(task_ids=" in sent.command
    assert one.validate().unknown == ["job_name", "env", "resources", "data 'later.csv'"]
    assert one.validate().description is None


def test_requirements_are_read_from_their_file(folder: Path) -> None:
    (folder / "requirements.txt").write_text("numpy")

    sent = training(folder, requirements="requirements.txt").validate()

    assert sent.command == "pip3 install -r requirements.txt && python3 train.py"
    assert sent.files == {"train.py": 8, "requirements.txt": 5}


def test_a_template_that_needs_more_than_the_context_has_is_unknown(folder: Path) -> None:
    task = training(folder, env={"RATE": "{{ var.value.rate }}", "DAY": "{{ ds }}"})

    sent = task.validate({"ds": "2026-01-01"})

    assert sent.unknown == ["env"]
    assert sent.command == "python3 train.py '--rate={{ var.value.rate }}' --day=2026-01-01"


@pytest.mark.parametrize(
    ("values", "command", "files"),
    [
        ({"script": "{{ params.script }}"}, "python3 '{{ params.script }}'", {}),
        (
            {"script": "{{ params.script }}", "source_dir": "."},
            "python3 '{{ params.script }}'",
            {"train.py": 8, "prices.csv": 5},
        ),
        ({"source_dir": "{{ params.folder }}"}, "python3 train.py", {}),
        ({"requirements": "{{ params.r }}"}, "pip3 install -r requirements.txt && python3 train.py", {"train.py": 8}),
        ({"data": "{{ params.data }}", "requirements": "-r a.txt"}, "pip3 install", {"train.py": 8}),
        ({"source_dir": "{{ params.folder }}", "requirements": "-r a.txt"}, "pip3 install", {}),
        ({"config": "{{ dag_run.conf }}"}, "python3 train.py", {"train.py": 8}),
        ({"script": "print(f'{{1}}')\n"}, "python3 train.py", {"train.py": 16}),
    ],
)
def test_an_unknown_parameter_leaves_the_others(
    folder: Path, values: dict[str, Any], command: str, files: dict[str, int]
) -> None:
    sent = training(folder, **values).validate()

    assert sent.command.startswith(command)
    assert {name: size for name, size in sent.files.items() if name != "requirements.txt"} == files
    assert bool(sent.unknown) == ("print" not in str(values))


def test_a_function_is_validated_as_the_program_that_it_becomes() -> None:
    with DAG("trainings", schedule=None):

        @training_task(image="i", completion_time="1h")
        def train(epochs: int, rate: float = 0.5) -> None: ...

        one = train(epochs=5).operator  # type: ignore[attr-defined]

    sent = one.validate()

    assert sent.command == "python3 train.py --epochs=5 --rate=0.5"
    assert sent.files["train.py"] > 100
    assert one.validate().command == sent.command, "the task is as it was"


def test_an_argument_that_cannot_reach_the_job_is_an_error() -> None:
    with DAG("trainings", schedule=None):

        @training_task(image="i", completion_time="1h")
        def train(raw: Any) -> None: ...

        one = train(raw=b"1").operator  # type: ignore[attr-defined]

    with pytest.raises(InvalidParameters, match="an argument cannot be a bytes"):
        one.validate()


def test_no_secret_is_shown_by_a_failed_comparison(folder: Path) -> None:
    sent = training(folder, env={"API_KEY": "pl4in-text"}).validate()

    assert "pl4in-text" in sent.command
    assert "pl4in-text" not in repr(sent)
