"""Metrics of all trainings for the administrator of Airflow.

Airflow sends them to StatsD, Datadog or OpenTelemetry, as configured in its section `[metrics]`, with that section's
prefix:

- `training.submits`: jobs submitted, a counter;
- `training.reattaches`: retries that continued with the job of an earlier try, a counter;
- `training.cancels`: jobs canceled since their task was ended, cleared or out of time, a counter;
- `training.log_lag`: milliseconds from the time of a job's log line to its arrival in the task log, a timing.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk.observability import stats


def submitted() -> None:
    """Count a job that was submitted."""
    stats.incr("training.submits")


def reattached() -> None:
    """Count a retry that continues with a job."""
    stats.incr("training.reattaches")


def canceled() -> None:
    """Count a job that was canceled."""
    stats.incr("training.cancels")


def log_line(written: datetime) -> None:
    """Time a log line that a job wrote then and that reaches the task log now."""
    stats.timing("training.log_lag", (datetime.now(timezone.utc) - written).total_seconds() * 1000)
