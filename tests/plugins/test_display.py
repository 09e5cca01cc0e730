"""The parameters of a training in a table, without secrets, and the labels of runs in a chart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_training.plugins.display import parameter_table, run_labels
from airflow_training.plugins.job_refs import TaskRef

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("name"), inner),
    max_leaves=10,
)


def test_the_config_of_a_run_overrides_the_fields_of_the_task() -> None:
    fields = {
        "job_name": "by-plan",
        "env": {"EPOCHS": 5, "RATE": 0.1},
        "config": "{'jobName': 'now', 'env': {'EPOCHS': 8}}",
    }

    assert dict(parameter_table(fields)) == {"job_name": "now", "env.EPOCHS": "8"}


@pytest.mark.parametrize(
    "env", [{"EPOCHS": 8}, '{"EPOCHS": 8}', [{"name": "EPOCHS", "value": 8}], '[{"name": "EPOCHS", "value": 8}]']
)
def test_variables_look_the_same_in_every_notation(env: Any) -> None:
    assert parameter_table({"env": env}) == [("env.EPOCHS", "8")]


def test_a_secret_in_the_configuration_of_a_run_is_masked_by_its_name() -> None:
    table = parameter_table({"config": '{"env": {"API_TOKEN": "s3cr3t", "password": "s3cr3t"}}'})

    assert table == [("env.API_TOKEN", "***"), ("env.password", "***")]


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
    table = parameter_table({"env": env})

    assert len(table) == 1
    assert "s3cr3t" not in table[0][1]


def test_resources_are_shown_once() -> None:
    table = parameter_table({"job_resources": {"cpu": 1}, "config": {"job_resources": {"cpu": 2}}})

    assert table == [("resources.cpu", "2")]


def test_a_lone_surrogate_is_replaced() -> None:
    assert parameter_table({"env": {"\ud83d": "\ud83d"}}) == [("env.?", "?")]


def test_a_table_is_bounded() -> None:
    table = parameter_table({"script": "x" * 100_000, "data": {str(number): "y" for number in range(1000)}})

    assert len(table) == 300
    assert len(table[0][1]) == 2001


@given(st.dictionaries(st.text(), JSON))
def test_any_fields_make_a_table_of_strings(fields: dict[str, Any]) -> None:
    assert all(isinstance(name, str) and isinstance(value, str) for name, value in parameter_table(fields))


RUNS = st.sampled_from(["manual__2026-11-26T09:30:12+00:00", "manual__2026-11-26T09:30:40+00:00", "mine", "mine [1]"])
REFS = st.builds(TaskRef, st.sampled_from("ab"), RUNS, st.sampled_from(["train", "t"]), st.integers(-1, 2))


@given(st.lists(REFS, unique=True, max_size=12))
def test_each_training_has_a_label(refs: list[TaskRef]) -> None:
    assert set(run_labels(refs)) == set(refs)


def test_runs_of_one_minute_differ_by_their_seconds() -> None:
    refs = [TaskRef("d", f"manual__2026-11-26T09:30:{second}+00:00", "train") for second in (12, 40)]

    assert list(run_labels(refs).values()) == ["2026-11-26 09:30:12", "2026-11-26 09:30:40"]


def test_mapped_tasks_differ_by_their_index() -> None:
    refs = [TaskRef("d", "manual__2026-11-26T09:30:12+00:00", "train", index) for index in range(2)]

    assert list(run_labels(refs).values()) == ["2026-11-26 09:30 [0]", "2026-11-26 09:30 [1]"]


def test_a_custom_run_id_is_its_label() -> None:
    assert list(run_labels([TaskRef("d", "backfill of May", "train")]).values()) == ["backfill of May"]
