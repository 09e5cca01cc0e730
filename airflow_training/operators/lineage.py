"""The OpenLineage facets of a training: the files that it reads, its model and its job.

OpenLineage's provider asks the operator, also the new one that Airflow creates after the trigger: the files come from
its parameters, which are rendered then as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow.providers.openlineage.extractors import OperatorLineage
from openlineage.client.event_v2 import Dataset
from openlineage.client.facet_v2 import external_query_run

from airflow_training.api.parameters import TrainingParameters
from airflow_training.exceptions import InvalidParameters
from airflow_training.hooks.training import TrainingHook
from airflow_training.operators import files

if TYPE_CHECKING:
    from airflow_training.operators.run import TaskRun
    from airflow_training.operators.training import TrainingOperator

# Schemes of the same store: OpenLineage has one name for it.
_SCHEMES = {"gcs": "gs", "s3a": "s3", "s3n": "s3"}


def lineage(
    task: TrainingOperator, run: TaskRun | None
) -> OperatorLineage[Dataset, external_query_run.ExternalQueryRunFacet]:
    """Describe a training as far as it is known.

    Args:
        task: The task, its templates rendered.
        run: Its run on this worker; None at its start.
    """
    # A job that was not submitted does not exist.
    claim = run.claim if run and run.claim and run.claim.submitted else None
    location = run.location if run else None
    return OperatorLineage(
        inputs=_datasets(_read_by(task)),
        outputs=_datasets([location]) if location else [],
        run_facets={
            "externalQuery": external_query_run.ExternalQueryRunFacet(
                externalQueryId=claim.job_id, source=f"training://{claim.training_conn_id}"
            )
        }
        if claim
        else {},
    )


def _read_by(task: TrainingOperator) -> list[str]:
    try:
        # Requirements are no input of the training, and their file need not be read.
        parameters = TrainingParameters.read(files.given(task) | {"requirements": None})
        return files.locations(parameters, files.dag_folder(task))
    except InvalidParameters:
        return []  # the task fails before it reads them


def _datasets(locations: Iterable[str]) -> list[Dataset]:
    return [dataset for location in dict.fromkeys(locations) if (dataset := _dataset(location))]


def _dataset(location: str) -> Dataset | None:
    """Name a location as OpenLineage does; None if a part of it may be a secret.

    >>> _dataset("s3://connection@models/census/1/?signature=5ecret")
    Dataset(namespace='s3://models', name='census/1', facets={})
    """
    scheme, has_scheme, rest = location.partition("://")
    if not has_scheme:
        return Dataset("file", os.path.normpath(location))
    if not scheme.isalnum() or "://" in rest:
        return None  # a chain of file systems, each of which may contain a secret
    try:
        uri = urlsplit(location)
        split_password = uri.port is not None and "@" in uri.path
    except ValueError:
        return None
    if split_password:
        return None  # a password with a slash in it looks like a port and a path
    before, _, store = uri.netloc.rpartition("@")
    if uri.scheme == "training":
        # Each connection has its own storage. For other schemes it only names the credentials.
        store = f"{before.partition(':')[0] or TrainingHook.default_conn_name}@{store}"
    scheme = _SCHEMES.get(uri.scheme, uri.scheme)
    if scheme == "file":
        return Dataset(f"file://{store}" if store else "file", os.path.normpath(uri.path))
    return Dataset(f"{scheme}://{store}", uri.path.strip("/") or "/")
