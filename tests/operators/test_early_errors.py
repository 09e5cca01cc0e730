"""Errors that are certain are found when the Dag is parsed, and only those."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, ObjectStoragePath, literal, task

from airflow_training.decorators.training import training_task
from airflow_training.exceptions import InvalidParameters
from airflow_training.operators.training import TrainingOperator

MINIMAL: dict[str, Any] = {"job_name": "a", "image": "i", "completion_time": "1h", "script": "print(1)\n"}


def training(**values: Any) -> TrainingOperator:
    return TrainingOperator(task_id="train", **MINIMAL | values)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"resources": {"cpu": 2}}, "resources.cpu is unknown"),
        ({"resources": {"cpu": "{{ params.cpus }}"}}, "resources.cpu is unknown"),
        ({"resources": {"gpus": -1}}, "resources.gpus must be a whole number, 0 or more, not -1"),
        ({"resources": {"cpus": "{{ params.cpus }}", "gpus": -1}}, "resources.gpus must be a whole number, 0 or more"),
        ({"job_name": "my job"}, "job_name must be 1 to 63 letters, digits"),
        ({"image": None}, "image is missing"),
        ({"completion_time": "1:30:00"}, "completion_time is not a time such as '20h'"),
        ({"completion_time": timedelta(hours=1)}, "completion_time must be a time such as '20h'"),
        ({"completion_time": -5}, "completion_time must be a time such as '20h', or a number of seconds, not -5"),
        ({"python_major_version": 4}, "python_major_version must be 2 or 3, not 4"),
        ({"env": {"A B": 1}}, "env[0].name must be letters, digits and '_'"),
        ({"env": {"A": "{{ ds }}"}, "environment": {"A": 1}}, "environment gives A more than once, or env does"),
        ({"data": {"../a": "x"}}, "data '../a' is not a file name"),
        ({"config": {"resources": {"gpus": -1}}}, "resources.gpus must be a whole number, 0 or more, not -1"),
        ({"config": {"image": "{{ params.image }}", "typo": 1}}, "typo is unknown"),
        ({"config": "{'a'"}, "config is neither JSON"),
        ({"config": {"oauthClientSecret": "x"}}, "config must not contain oauthClientSecret"),
    ],
)
def test_a_literal_that_is_wrong_is_an_error_of_the_file(values: dict[str, Any], error: str) -> None:
    with pytest.raises(InvalidParameters) as raised:
        training(**values)

    (found,) = [each for each in raised.value.errors if each.startswith(error)]
    assert found in str(raised.value)


def test_all_errors_are_listed_at_once() -> None:
    with pytest.raises(
        InvalidParameters, match=r"3 errors: job_name must .*; resources\.cpu is .*; python_major_version"
    ):
        training(job_name="a b", resources={"cpu": 1}, python_major_version=4)


@pytest.mark.parametrize(
    "values",
    [
        {"resources": {"cpus": "{{ params.cpus }}"}, "python_major_version": "{{ params.python }}"},
        {"resources": "{% if params.big %}{}{% endif %}"},
        {"job_name": "train {{ ds }}", "image": "i {{ x }}", "completion_time": "{{ params.time }}"},
        {"env": "{{ params.env }}", "args": "--day '{{ ds }}", "environment": "{{ params.env }}"},
        {"env": {"A": "{{ a }}"}, "data": "{{ params.data }}", "requirements": "-r {{ params.file }}"},
        {"script": "{{ params.script }}", "source_dir": "{{ params.folder }}"},
        {"script": ObjectStoragePath("s3://bucket/train.py"), "job_name": literal("a")},
        {"completion_time": "1:30:00", "execution_timeout": timedelta(hours=2)},
        {"job_name": "a b", "config": "{{ dag_run.conf }}"},
        {"job_name": "a b", "resources": {"cpu": 1}, "config": {"job_name": "b", "resources": "{{ params.r }}"}},
        {"job_name": "a b", "config": '{"jobName": "b"}'},
        {"script": "no_such.py", "config": {"script": "{{ params.script }}"}},
        {"script": "/a/folder/of/the/workers/train.py"},
        {"script": "s3://scripts/train.py"},
        {"script": "-m package.train", "source_dir": "no_such"},
    ],
)
def test_what_may_be_right_at_run_time_is_no_error(values: dict[str, Any]) -> None:
    with DAG("trainings", schedule=None):
        assert training(**values).task_id == "train"


def test_the_results_of_other_tasks_are_not_known_yet() -> None:
    with DAG("trainings", schedule=None):

        @task
        def found() -> Any: ...

        later: Any = found()
        training(
            **dict.fromkeys(("job_name", "image", "completion_time", "script", "resources", "data", "args"), later)
        )
        TrainingOperator(
            task_id="parts",
            **MINIMAL
            | {"env": {"A": later}, "args": ["--a", later], "data": {"a": later}, "resources": {"cpus": later}},
        )
        TrainingOperator(task_id="code", **MINIMAL | {"script": later, "source_dir": "code"})


def test_the_templates_of_a_dag_with_markers_of_its_own_are_not_recognized() -> None:
    with DAG("trainings", schedule=None, jinja_environment_kwargs={"variable_start_string": "<<"}):
        assert training(job_name="train <<ds>>").job_name == "train <<ds>>"


def test_mapped_tasks_are_checked_when_they_run() -> None:
    with DAG("trainings", schedule=None):
        mapped = TrainingOperator.partial(task_id="train", **MINIMAL).expand(env=[{"A B": 1}])

    one: Any = mapped.unmap({"env": {"A B": 1}})
    assert one.env == {"A B": 1}


def test_a_function_is_checked_too() -> None:
    @training_task(image="i", completion_time="1h", resources={"cpu": 1})
    def train() -> None: ...

    with pytest.raises(InvalidParameters, match=r"resources\.cpu is unknown"):
        train()


DAG_FILE = """
from dag_factory import make

dag = make({script!r}, {source_dir!r})
"""
FACTORY = """
from airflow.sdk import DAG
from airflow_training.operators.training import TrainingOperator

def make(script, source_dir):
    with DAG("made", schedule=None) as dag:
        TrainingOperator(
            task_id="train", job_name="a", image="i", completion_time="1h", script=script, source_dir=source_dir
        )
    return dag
"""


@pytest.mark.parametrize(
    ("script", "source_dir", "missing"),
    [
        ("train.py", None, ""),
        ("code/train.py", None, ""),
        ("train.py", "code", ""),
        ("trian.py", None, "{folder}/trian.py"),
        ("trian.py", "code", "{folder}/code/trian.py"),
        ("train.py", "cod", "{folder}/cod/train.py"),
    ],
)
def test_a_script_that_is_not_beside_the_dag_file_is_an_import_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, source_dir: str | None, missing: str
) -> None:
    """Also if another module makes the Dag, whose file Airflow notes only when it has read it."""
    (tmp_path / "code").mkdir()
    for name in ("train.py", "code/train.py"):
        (tmp_path / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/dag_factory.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    file = tmp_path / "made.py"
    file.write_text(DAG_FILE.format(script=script, source_dir=source_dir))

    bag = DagBag(file, safe_mode=False)

    if not missing:
        made: Any = bag.dags["made"]
        assert not bag.import_errors
        assert made.get_task("train").script == script
    else:
        (error,) = bag.import_errors.values()
        found = missing.format(folder=tmp_path)
        assert error.strip().endswith(f"its description has 1 error: script does not exist: {found}. [AT-001]")
