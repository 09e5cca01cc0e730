"""What whoever runs Airflow can watch of all trainings together.

Airflow sends these to StatsD, Datadog or OpenTelemetry, as the section `[metrics]` of its configuration says, with that
section's prefix:

- `training.submits`: jobs submitted, a counter;
- `training.reattaches`: retries that went on with the job of the try before, a counter;
- `training.cancels`: jobs canceled since their task was ended, cleared or out of time, a counter;
- `training.log_lag`: milliseconds from the writing of a line by a job to its arrival in the task log, a timing.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk.observability import stats


def submitted() -> None:
    """Count a job that was submitted."""
    stats.incr("training.submits")


def reattached() -> None:
    """Count a retry that goes on with a job."""
    stats.incr("training.reattaches")


def canceled() -> None:
    """Count a job that was canceled."""
    stats.incr("training.cancels")


def told(written: datetime) -> None:
    """Time a line of a log that was written then and is told now."""
    stats.timing("training.log_lag", (datetime.now(timezone.utc) - written).total_seconds() * 1000)
