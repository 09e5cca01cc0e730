"""What Airflow learns of the package when it is installed."""

from __future__ import annotations

import pytest
from airflow.providers_manager import ProvidersManager
from airflow.sdk.providers_manager_runtime import ProvidersManagerTaskRuntime

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
