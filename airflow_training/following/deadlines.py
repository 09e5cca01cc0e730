"""How long a job may take: the earliest of several deadlines, and the message when it has passed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from airflow_training.api.status import JobState, JobStatus


@dataclass(frozen=True, slots=True)
class Limits:
    """The time limits of a job.

    Attributes:
        submitted: When it was submitted, by our clock.
        deadline: When the task must have ended, from its `execution_timeout`.
        completion_time: How long the job may run, counted from its start.
        pending_timeout: How long it may wait for its start, counted from its submission.
    """

    submitted: datetime
    deadline: datetime | None = None
    completion_time: timedelta | None = None
    pending_timeout: timedelta | None = None

    def to_dict(self) -> dict[str, Any]:
        """The limits as JSON."""
        return {
            "submitted": self.submitted.isoformat(),
            "deadline": self.deadline.isoformat() if self.deadline else None,
            "completion_time": _seconds(self.completion_time),
            "pending_timeout": _seconds(self.pending_timeout),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Limits:
        """Read what `to_dict` wrote."""
        deadline = values["deadline"]
        return cls(
            datetime.fromisoformat(values["submitted"]),
            datetime.fromisoformat(deadline) if deadline else None,
            _timedelta(values["completion_time"]),
            _timedelta(values["pending_timeout"]),
        )

    def next_end(self, status: JobStatus | None) -> tuple[datetime, str] | None:
        """The earliest deadline of a job and the message when it has passed; None if it has none.

        Args:
            status: The status of the job; None if it is not known yet.
        """
        ends: list[tuple[datetime, str]] = []
        if self.deadline:
            ends.append((self.deadline, "has not ended within the task's execution_timeout"))
        if status and status.start_time and self.completion_time:
            # The clocks of two machines differ; no job starts before its submission.
            started = max(status.start_time, self.submitted)
            ends.append((started + self.completion_time, f"has exceeded its completion_time of {self.completion_time}"))
        if status and status.state is JobState.PENDING and self.pending_timeout:
            reason = status.message.rstrip(".") or "the service gives no reason"
            waited = f"has not started within its pending_timeout of {self.pending_timeout}: {reason}"
            ends.append((self.submitted + self.pending_timeout, waited))
        return min(ends, default=None)


def _seconds(time: timedelta | None) -> float | None:
    return time.total_seconds() if time is not None else None


def _timedelta(seconds: float | None) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds is not None else None
