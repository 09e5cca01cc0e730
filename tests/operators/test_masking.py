"""The secrets that Airflow masks are sent to the service, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from airflow.sdk import DAG
from airflow.sdk._shared.secrets_masker import redact, reset_secrets_masker
from airflow.sdk.log import mask_secret

from airflow_training.api.description import JobDescription
from airflow_training.api.parameters import TrainingParameters
from airflow_training.decorators.training import training_task
from airflow_training.operators.masked_secrets import mask_given, masks, unmasked
from airflow_training.operators.training import TrainingOperator

MINIMAL: dict[str, Any] = {"job_name": "a", "image": "i", "completion_time": "1h", "script": "print(1)\n"}


@pytest.fixture(autouse=True)
def _no_secrets_of_others() -> Iterator[None]:
    reset_secrets_masker()
    yield
    reset_secrets_masker()


def masks_of(**parameters: Any) -> list[str]:
    mask_given(parameters)
    return masks(TrainingParameters.read(MINIMAL | parameters))


def test_a_secret_that_a_template_read_from_a_connection_is_sent() -> None:
    mask_secret("wb-5ecret")
    mask_secret("another-5ecret")

    assert masks_of(env={"TRACKER": "wb-5ecret", "EPOCHS": 5}) == ["wb-5ecret"]
    assert masks_of(launcher=["env", "KEY=wb-5ecret", "python3"]) == ["wb-5ecret"]
    assert masks_of(env={"URL": "https://user:wb-5ecret@host/"}) == ["wb-5ecret"]
    assert masks_of(script="key = 'wb-5ecret'\nprint(key)") == ["wb-5ecret"]
    assert masks_of(requirements="--index-url https://user:wb-5ecret@host/simple\nnumpy") == ["wb-5ecret"]
    assert masks_of(env={"EPOCHS": 5}) == []


def test_of_two_secrets_one_inside_the_other_both_are_sent() -> None:
    mask_secret("5ecret")
    mask_secret("wb-5ecret-long")

    assert masks_of(env={"TRACKER": "wb-5ecret-long"}) == ["5ecret", "wb-5ecret-long"]


@pytest.mark.parametrize(
    "env",
    [
        {"API_KEY": "pl4in-text"},
        [{"name": "API_KEY", "value": "pl4in-text"}],
        '{"API_KEY": "pl4in-text"}',
        "[{'name': 'API_KEY', 'value': 'pl4in-text'}]",
    ],
)
def test_the_value_of_a_variable_with_a_sensitive_name_is_sent_and_masked_by_airflow_too(env: Any) -> None:
    assert masks_of(env=env) == ["pl4in-text"]
    assert redact("The log of a worker: pl4in-text") == "The log of a worker: ***"


@pytest.mark.parametrize(
    "given",
    [
        {"environment": {"API_KEY": "pl4in-text"}},
        {"args": {"api-key": "pl4in-text", "epochs": 5}},
        {"args": ["fit", "--api-key", "pl4in-text"]},
        {"args": "fit --api_key=pl4in-text"},
    ],
)
def test_the_value_of_an_option_with_a_sensitive_name_is_masked_too(given: dict[str, Any]) -> None:
    assert masks_of(**given) == ["pl4in-text"]
    assert redact("The log of a worker: pl4in-text") == "The log of a worker: ***"


def test_a_short_secret_is_masked_where_it_is_an_option() -> None:
    assert masks_of(args=["--password", "abc", "--epochs=5"]) == ["--password abc", "--password=abc"]


def test_a_sensitive_value_that_contains_a_known_secret_is_masked_completely() -> None:
    mask_secret("5ecret")

    assert masks_of(env={"AUTH_TOKEN": "prefix-5ecret"}) == ["5ecret", "prefix-5ecret"]


def test_a_short_secret_is_masked_where_it_is_a_variable_and_not_in_every_word() -> None:
    named = masks_of(env={"PASSWORD": "abc", "API_TOKEN": "airflow", "SECRET": ""})

    assert named == ["--api_token=airflow", "--password=abc", "API_TOKEN=airflow", "PASSWORD=abc"]


def test_a_number_in_a_text_does_not_mask_that_number_in_the_metrics() -> None:
    assert masks_of(env={"MAX_TOKENS": "16384"}) == ["--max_tokens=16384", "MAX_TOKENS=16384"]
    assert redact("loss: 0.16384") == "loss: 0.16384"


def test_a_number_that_a_template_read_from_a_connection_is_a_secret() -> None:
    mask_secret("12345678")

    assert masks_of(env={"PIN": "12345678"}) == ["12345678"]


@pytest.mark.parametrize("value", [16384, True, 0.5])
def test_a_number_is_no_secret_whatever_its_name(value: Any) -> None:
    assert masks_of(env={"MAX_TOKENS": value}) == []


@pytest.mark.parametrize(
    "env", [None, "", "no JSON", "{[]: 1}", 5, ["x"], [{"name": 5}], [{"name": "API_KEY"}], {"API_KEY": None}]
)
def test_an_invalid_env_is_left_to_the_validation(env: Any) -> None:
    mask_given({"env": env})


def test_a_description_without_secrets_is_unchanged() -> None:
    parameters = TrainingParameters.read(MINIMAL)

    assert "masks" not in JobDescription.of(parameters, masks(parameters)).to_wire()["job"]


@pytest.mark.parametrize("override", [{}, {"config": '{"env": [{"name": "API_KEY", "value": "pl4in-text"}]}'}])
def test_airflow_masks_the_rendered_fields_of_a_task(override: dict[str, Any]) -> None:
    env = json.dumps({"API_KEY": "{{ 'pl4in' }}-text"})
    with DAG("plain", schedule=None):
        task = TrainingOperator(task_id="train", env=env, **MINIMAL, **override)

    task.render_template_fields({"ti": Mock()})

    assert redact(task.env) == '{"API_KEY": "***"}'


def test_the_arguments_of_a_function_are_masked_by_their_names() -> None:
    with DAG("decorated", schedule=None):

        @training_task(image="i", completion_time="1h")
        def train(api_key: str, max_tokens: int) -> None: ...

        task = train(api_key="pl4in-text", max_tokens=16384).operator  # type: ignore[attr-defined]
    task._make_script()

    assert masks_of(env=task.env, script=task.script) == ["pl4in-text"]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"env": {"RATE": 0.1, "API_KEY": "pl4in-text", "MAX_TOKENS": 5}}, {"env": {"RATE": 0.1, "MAX_TOKENS": 5}}),
        ({"env": {"URL": "https://user:wb-5ecret@host"}, "environment": {"A": "b"}}, {"environment": {"A": "b"}}),
        (
            {"args": {"rate": 0.1, "api-key": ["a", "b"], "layers": [64, 32]}},
            {"args": {"rate": 0.1, "layers": [64, 32]}},
        ),
        ({"args": "fit --api-key abc --rate=0.1 --password=x -v"}, {"args": ["fit", "--rate=0.1", "-v"]}),
        ({"args": ["--of", "wb-5ecret"], "env": {"QUERY": "x" * 1001}}, {"args": ["--of"]}),
        (
            {"env": {"BEST": float("inf")}, "args": {"rates": [float("nan"), 1]}},
            {"env": {"BEST": "Infinity"}, "args": {"rates": ["NaN", 1]}},
        ),
        ({}, {}),
    ],
)
def test_a_result_has_the_parameters_without_secrets(values: dict[str, Any], shown: dict[str, Any]) -> None:
    mask_secret("wb-5ecret")

    assert unmasked(TrainingParameters.read(MINIMAL | values), values.get("args")) == shown
