"""The parameters of a training in a table, and nothing secret among them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_training.plugins.parameter_table import flat

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("name"), inner),
    max_leaves=10,
)


def test_what_a_run_was_configured_with_overrides_what_the_task_has() -> None:
    fields = {
        "job_name": "by-plan",
        "env": {"EPOCHS": 5, "RATE": 0.1},
        "config": "{'jobName': 'now', 'env': {'EPOCHS': 8}}",
    }

    assert dict(flat(fields)) == {"job_name": "now", "env.EPOCHS": "8"}


@pytest.mark.parametrize(
    "env", [{"EPOCHS": 8}, '{"EPOCHS": 8}', [{"name": "EPOCHS", "value": 8}], '[{"name": "EPOCHS", "value": 8}]']
)
def test_variables_look_the_same_however_they_were_given(env: Any) -> None:
    assert flat({"env": env}) == [("env.EPOCHS", "8")]


def test_a_secret_in_the_configuration_of_a_run_is_masked_by_its_name() -> None:
    told = flat({"config": '{"env": {"API_TOKEN": "s3cr3t", "password": "s3cr3t"}}'})

    assert told == [("env.API_TOKEN", "***"), ("env.password", "***")]


@pytest.mark.parametrize(
    "env",
    [
        '  {"API_TOKEN": "s3cr3t"}',
        "{'API_TOKEN': 's3cr3t'}",
        '\n[{"name": "API_TOKEN", "value": "s3cr3t"}]',
        {"SETTINGS": '{"password": "s3cr3t"}'},
        {"SETTINGS": ' [{"password": "s3cr3t"}]'},
        {"SETTINGS": ['{"password": "s3cr3t"}']},
        {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"password": "s3cr3t"}}}}}}}},
        '{"a": ' * 900 + '{"password": "s3cr3t"}' + "}" * 900,
    ],
)
def test_a_secret_is_masked_by_its_name_however_it_is_wrapped(env: Any) -> None:
    told = flat({"env": env})

    assert len(told) == 1
    assert "s3cr3t" not in told[0][1]


def test_resources_are_told_once() -> None:
    told = flat({"job_resources": {"cpu": 1}, "config": {"job_resources": {"cpu": 2}}})

    assert told == [("resources.cpu", "2")]


def test_half_a_character_is_replaced() -> None:
    assert flat({"env": {"\ud83d": "\ud83d"}}) == [("env.?", "?")]


def test_a_table_is_bounded() -> None:
    told = flat({"script": "x" * 100_000, "data": {str(number): "y" for number in range(1000)}})

    assert len(told) == 300
    assert len(told[0][1]) == 2001


@given(st.dictionaries(st.text(), JSON))
def test_whatever_a_task_has_makes_a_table_of_texts(fields: dict[str, Any]) -> None:
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in flat(fields))
