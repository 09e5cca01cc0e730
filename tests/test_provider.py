"""The metadata of the installed package in Airflow."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.resources import files

import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

from airflow_training.get_provider_info import get_provider_info
from airflow_training.hooks.training import EXTRA_FIELDS, TrainingHook


@pytest.fixture
def manager() -> ProvidersManager:
    return ProvidersManager()


def test_airflow_lists_the_provider(manager: ProvidersManager) -> None:
    assert manager.providers["airflow-training"].data["name"] == "Training"
    assert "airflow_training.filesystems.training" in ProvidersManagerTaskRuntime().filesystem_module_names


def test_the_connection_has_a_type_and_a_form_of_its_own(manager: ProvidersManager) -> None:
    hook = ProvidersManagerTaskRuntime().hooks[TrainingHook.conn_type]

    assert hook
    assert hook.hook_name == TrainingHook.hook_name
    assert hook.connection_id_attribute_name == TrainingHook.conn_name_attr
    prefix = f"extra__{TrainingHook.conn_type}__"
    fields = {name.removeprefix(prefix) for name in manager.connection_form_widgets if name.startswith(prefix)}
    assert fields == EXTRA_FIELDS
    assert manager.field_behaviours[TrainingHook.conn_type]["relabeling"]["password"] == "OAuth2 client secret"


def test_the_metadata_is_what_airflow_allows() -> None:
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())

    jsonschema.validate(get_provider_info(), schema)


def test_airflow_shows_the_provider_on_the_command_line() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "airflow", "providers", "get", "airflow-training", "--full", "--output", "json"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    for kind in ("connection-types", "extra-links", "filesystems", "task-decorators", "triggers"):
        assert kind in shown


@pytest.mark.parametrize("kind", ["operators", "hooks", "triggers"])
def test_every_listed_module_exists(kind: str) -> None:
    for entry in get_provider_info()[kind]:
        for module in entry["python-modules"]:
            import_module(module)
