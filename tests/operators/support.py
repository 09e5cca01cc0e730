"""A task that resumes, without the Airflow that resumes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from unittest.mock import Mock

from airflow_training.operators.claim import Claim
from airflow_training.operators.training import TrainingOperator


def resume(operator: TrainingOperator, status: str, claim: Claim, metrics: Mapping[str, float] | None = None) -> Any:
    """Resume a task on a new worker, as Airflow does after the trigger's event; returns the result."""
    outcome = {"job_id": claim.job_id, "status": {"job_id": claim.job_id, "status": status}}
    event = {**outcome, "last_lines": [], "metrics": metrics or {}}
    context: Any = {"ti": Mock(map_index=-1), "task_state_store": Mock()}
    operator.execute_complete(context, event, asdict(claim))
    return context["ti"].xcom_push.call_args_list[-1].args[1]
