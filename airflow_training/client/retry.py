"""When a request is retried: the policies, as data.

Source of the statuses: RFC 9110 sections 15.5.9 and 15.6, RFC 6585 section 4, RFC 8470 section 5.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from tenacity import (
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_after_delay,
    stop_all,
    wait_random_exponential,
)

from airflow_training.exceptions import ServiceError

AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses after which a request is retried; every other error status is final."""

REFUSED = frozenset({401, 403})
"""Statuses for refused credentials."""

TOKEN_REFUSED = 401
"""The job API's status for a refused token: a fresh one may be valid."""


class TryAgain(Exception):
    """A failed attempt after which the next one may succeed.

    Attributes:
        reason: What happened, as a part of a sentence.
        after: Seconds that the server asks the client to wait.
        error: The error after the last attempt; ServiceUnavailable if it is None.
    """

    def __init__(self, reason: str, *, after: float = 0.0, error: ServiceError | None = None) -> None:
        self.reason = reason
        self.after = after
        self.error = error
        super().__init__(reason)


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential back-off with full jitter, within a budget of time.

    Attributes:
        budget: Seconds after which no further attempt begins; there is always a second one, since the first may wait
            longer for its reply.
        first: Upper bound of the first wait in seconds; it doubles each time.
        longest: Upper bound of any wait, including one that the server asks for.
    """

    budget: float = 30.0
    first: float = 0.5
    longest: float = 30.0

    def tenacity(self) -> dict[str, Any]:
        """The policy as arguments of `Retrying` and `AsyncRetrying`."""
        jittered = wait_random_exponential(multiplier=self.first, max=self.longest)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            requested = error.after if isinstance(error, TryAgain) else 0.0
            return max(jittered(state), min(requested, self.longest))

        return {
            "retry": retry_if_exception_type(TryAgain),
            "wait": wait,
            "stop": stop_all(stop_after_delay(self.budget), stop_after_attempt(2)),
            "reraise": True,
        }


REQUEST = RetryPolicy()
"""A single request."""

FOLLOW = RetryPolicy(budget=15 * 60)
"""Following a job: the upgrade of a service does not end a training."""

CANCEL_AFTER_EXIT = RetryPolicy(budget=15 * 60)
"""The cancellation of a job by the process that outlives its task."""

CHECK = RetryPolicy(budget=5)
"""A check of a connection: the user waits for the result."""

PAGE = RetryPolicy(budget=1, first=0.2, longest=0.5)
"""The training page, which is empty meanwhile."""

TASK_STATE = RetryPolicy(budget=60, longest=10)
"""Reading the state of an ended task from Airflow; much later there may be another try."""


def retry_after(headers: Mapping[str, str]) -> float:
    """Read Retry-After, in seconds or as a date (RFC 9110 section 10.2.3); 0 if there is none.

    >>> retry_after({"Retry-After": "7"})
    7.0
    """
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
