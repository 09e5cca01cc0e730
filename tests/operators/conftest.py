"""Fixtures for the end of a task: a job that has left a model, on a running service."""

from __future__ import annotations

from uuid import uuid4

import pytest
from airflow.sdk import ObjectStoragePath

from airflow_training.operators.claim import Claim


@pytest.fixture
def claim(training_connection: str) -> Claim:
    """A job that has left a model."""
    claim = Claim(str(uuid4()), 1, 0, "census", training_connection, None, "1h").accepted()
    model = ObjectStoragePath(f"training://{training_connection}@data/{claim.folder}/model/1")
    (model / "saved_model.pb").write_bytes(b"graph")
    return claim
