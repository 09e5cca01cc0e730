"""The job description, and the command that a shell runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_training.api.description import JobDescription, command_line
from airflow_training.api.parameters import TrainingParameters

MINIMAL: dict[str, Any] = {"job_name": "census", "image": "tf:1", "completion_time": "1h", "script": "train.py"}


def read(**values: Any) -> TrainingParameters:
    return TrainingParameters.read({**MINIMAL, **values})


@pytest.mark.parametrize(
    ("values", "command"),
    [
        ({}, "python3 train.py"),
        ({"python_major_version": 2}, "python train.py"),
        ({"requirements": "numpy"}, "pip3 install -r requirements.txt && python3 train.py"),
        ({"requirements": "numpy", "python_major_version": 2}, "pip install -r requirements.txt && python train.py"),
        ({"requirements": " \n"}, "python3 train.py"),
        ({"env": {"TEST_DATA": "adult.test"}}, "python3 train.py --test_data=adult.test"),
        ({"script": "s3://bucket/models/my model.py"}, "python3 'my model.py'"),
    ],
)
def test_the_command_is_the_one_that_trainingclient_ran(values: dict[str, Any], command: str) -> None:
    assert command_line(read(**values)) == command


@pytest.mark.parametrize(
    ("values", "command"),
    [
        ({"source_dir": "code", "script": "fit/train.py"}, "python3 fit/train.py"),
        ({"source_dir": "code", "script": "-m fit.train"}, "python3 -m fit.train"),
        ({"script": "-m  fit"}, "python3 -m fit"),
        ({"launcher": "torchrun --nproc-per-node 2"}, "torchrun --nproc-per-node 2 train.py"),
        ({"launcher": ["python3", "-X", "dev"], "script": "-m fit"}, "python3 -X dev -m fit"),
        ({"launcher": "sh -c 'exec \"$@\"' sh python3"}, """sh -c 'exec "$@"' sh python3 train.py"""),
        ({"args": ["fit", "--epochs", 5, None, True]}, "python3 train.py fit --epochs 5 true"),
        ({"args": "fit --name 'a b'"}, "python3 train.py fit --name 'a b'"),
        ({"args": '["a b", 1.50]'}, "python3 train.py 'a b' 1.50"),
        (
            {"args": {"learning-rate": 0.1, "layers": [64, 32], "fast": True, "slow": False, "seed": None, "-v": 2}},
            "python3 train.py --learning-rate=0.1 --layers 64 32 --fast -v 2",
        ),
        ({"env": {"EPOCHS": 5}, "args": ["x"], "environment": {"A": 1}}, "python3 train.py --epochs=5 x"),
    ],
)
def test_the_command_has_a_launcher_and_arguments_of_its_own(values: dict[str, Any], command: str) -> None:
    assert command_line(read(**values)) == command


def test_variables_that_are_no_arguments_are_sent_with_the_others() -> None:
    job = JobDescription.of(read(env={"EPOCHS": 5}, environment={"TRACKER": "http://tracker", "DEBUG": True}))

    assert [(each.name, each.value) for each in job.env] == [
        ("EPOCHS", "5"),
        ("TRACKER", "http://tracker"),
        ("DEBUG", "true"),
    ]


@pytest.mark.parametrize(("model", "sent"), [("SavedModel", None), ("m.joblib", "m.joblib"), (None, "")])
def test_an_older_service_gets_no_field_for_a_saved_model(model: str | None, sent: str | None) -> None:
    assert JobDescription.of(read(model=model)).to_wire()["job"].get("model") == sent


any_text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
awkward = st.sampled_from(["a b", "'", '"', "$HOME", "`id`", "; rm -rf x", "a\nb", "\\", "*", "", "é😀", "!x", "#"])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_text | awkward, min_size=1, max_size=4), st.lists(any_text | awkward, max_size=3))
def test_every_value_arrives_unchanged_whatever_it_holds(tmp_path: Path, texts: list[str], args: list[str]) -> None:
    (tmp_path / "train.py").write_text("import json, sys\nprint(json.dumps(sys.argv[1:]))")
    env = {f"V{number}": text for number, text in enumerate(texts)}

    run = subprocess.run(
        ["/bin/sh", "-c", command_line(read(env=env, args=args, launcher=["python3", "-B"]))],
        cwd=tmp_path,
        env={"PATH": str(Path(sys.executable).parent), "PYTHONUTF8": "1"},
        capture_output=True,
        check=True,
    )

    assert json.loads(run.stdout) == [*(f"--v{number}={text}" for number, text in enumerate(texts)), *args]


def test_the_wire_document_has_the_form_that_the_old_service_took() -> None:
    parameters = read(
        env=[{"name": "TRAIN_DATA", "value": "adult.data"}, {"name": "EPOCHS", "value": 50}],
        resources={"cpus": 2, "gpus": 1, "memory": 32000},
        requirements="tensorflow==1.6.0",
        completion_time="20h",
    )

    assert JobDescription.of(parameters).to_wire() == {
        "job": {
            "name": "census",
            "env": [{"name": "TRAIN_DATA", "value": "adult.data"}, {"name": "EPOCHS", "value": "50"}],
            "execution": {
                "image": "tf:1",
                "command": "pip3 install -r requirements.txt && python3 train.py --train_data=adult.data --epochs=50",
                "completionTime": "20h",
                "resources": {"cpus": 2, "gpus": 1, "memory": 32000},
                "retries": 0,
            },
        }
    }


def test_what_is_sent_is_what_is_read() -> None:
    description = JobDescription.of(read(env={"A": True}))

    assert JobDescription.from_wire(description.to_wire()) == description


@pytest.mark.parametrize(
    "execution",
    [
        {"command": "true", "completionTime": 10000, "resourcePlanId": "basic"},
        {"command": "true", "completionTime": "20h", "resources": None, "priority": "of another generation"},
    ],
)
def test_both_generations_of_the_description_are_read(execution: dict[str, Any]) -> None:
    document = {"job": {"name": "a", "env": [{"name": "N", "value": 1.5}], "execution": execution}}

    assert JobDescription.from_wire(document).env[0].text == "1.5"


@pytest.mark.parametrize(
    "document",
    [None, [], "x", {}, {"job": None}, {"job": {"name": "a"}}, {"job": {"name": "../a", "execution": {}}}],
)
def test_what_is_no_description_is_refused(document: Any) -> None:
    with pytest.raises(ValidationError):
        JobDescription.from_wire(document)
