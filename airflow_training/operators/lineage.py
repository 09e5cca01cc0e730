"""What OpenLineage learns of a training: the files that it reads, its model and its job.

OpenLineage's provider asks the operator, also the one that Airflow creates anew when the trigger has done its part: the
files are told from its parameters, which are rendered then as well.
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
from airflow_training.operators import inputs

if TYPE_CHECKING:
    from airflow_training.operators.execution import Execution
    from airflow_training.operators.training import TrainingOperator

# Schemes that mean the same store: OpenLineage has one name for it.
_SCHEMES = {"gcs": "gs", "s3a": "s3", "s3n": "s3"}


def lineage(
    task: TrainingOperator, execution: Execution | None
) -> OperatorLineage[Dataset, external_query_run.ExternalQueryRunFacet]:
    """Describe a training, as far as it has come.

    Args:
        task: The task, its templates rendered.
        execution: What the worker did for it; None at its start.
    """
    claim, location = (execution.claim, execution.location) if execution else (None, None)
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
        return inputs.locations(TrainingParameters.read(inputs.given(task)), inputs.folder_of(task))
    except InvalidParameters:
        return []  # the task fails before it reads anything


def _datasets(locations: Iterable[str]) -> list[Dataset]:
    return [dataset for location in dict.fromkeys(locations) if (dataset := _dataset(location))]


def _dataset(location: str) -> Dataset | None:
    """Name a location as OpenLineage does; None where it cannot be told which part of it may be a secret.

    >>> _dataset("s3://connection@models/census/1/?signature=5ecret")
    Dataset(namespace='s3://models', name='census/1', facets={})
    """
    scheme, has_scheme, rest = location.partition("://")
    if not has_scheme:
        return Dataset("file", os.path.normpath(location))
    if not scheme.isalnum() or "://" in rest:
        return None  # a chain of file systems, each of which may have a secret
    try:
        uri = urlsplit(location)
        torn = uri.port is not None and "@" in uri.path
    except ValueError:
        return None
    if torn:
        return None  # a password with a slash in it looks like a port and a path
    before, _, store = uri.netloc.rpartition("@")
    if uri.scheme == "training":
        # Each connection has a storage of its own. Elsewhere it only says who asks.
        store = f"{before.partition(':')[0] or TrainingHook.default_conn_name}@{store}"
    scheme = _SCHEMES.get(uri.scheme, uri.scheme)
    if scheme == "file":
        return Dataset(f"file://{store}" if store else "file", os.path.normpath(uri.path))
    return Dataset(f"{scheme}://{store}", uri.path.strip("/") or "/")
