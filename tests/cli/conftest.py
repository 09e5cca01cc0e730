"""A service for the commands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from airflow_training.client.settings import ClientSettings
from tests.cli.commands import Command, run


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: ClientSettings) -> Command:
    """Runs a command with the service in the environment, and without the user's profiles."""
    for name in os.environ:
        if name.startswith("TRAINING_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("TRAINING_URL", settings.base_url)
    monkeypatch.setenv("TRAINING_CLIENT_ID", settings.client_id)
    monkeypatch.setenv("TRAINING_CLIENT_SECRET", settings.client_secret)
    return run
