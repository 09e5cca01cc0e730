"""What those learn who wait for a model: the event of each asset among the outlets of a training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset
from airflow.sdk.definitions.asset import AssetRef

from airflow_training.operators.result import Result

if TYPE_CHECKING:
    from airflow.sdk import Context
    from pydantic import JsonValue


def tell_outlets(context: Context, outlets: Iterable[Any], result: Result) -> None:
    """Put the location of a model, its job, its metrics and the duration of its training into the events.

    Args:
        context: The context that the task runs in.
        outlets: The task's outlets; those that are no assets are left alone.
        result: What came of the job.
    """
    told: dict[str, JsonValue] = {
        "location": result.location,
        "job_id": result.job_id,
        "metrics": dict(result.metrics),
        "duration": result.duration,
    }
    for outlet in outlets:
        if isinstance(outlet, (Asset, AssetRef)):
            context["outlet_events"][outlet].extra.update(told)
