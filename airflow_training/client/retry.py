"""When a request is made again: the policy, as data.

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
"""Statuses that ask for patience; every other error status is final."""

REFUSED = frozenset({401, 403})
"""Statuses by which a server refuses credentials."""

TOKEN_REFUSED = 401
"""The status by which the job API refuses a token: a fresh one may be good."""


class TryAgain(Exception):
    """An attempt that failed in a way that the next one need not.

    Attributes:
        reason: What happened, as a part of a sentence.
        after: Seconds that the server asked us to wait.
        error: What to raise when there is no next attempt; ServiceUnavailable where it is None.
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
        budget: Seconds after which no further attempt is begun; a second one is made in any case, since one attempt
            alone may wait for a reply for longer.
        first: Upper bound of the first wait, in seconds; it doubles each time.
        longest: Upper bound of any wait, also of one that the server asks for.
    """

    budget: float = 30.0
    first: float = 0.5
    longest: float = 30.0

    def tenacity(self) -> dict[str, Any]:
        """The policy in the words of tenacity, for `Retrying` and `AsyncRetrying` alike."""
        jittered = wait_random_exponential(multiplier=self.first, max=self.longest)

        def wait(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.after if isinstance(error, TryAgain) else 0.0
            return max(jittered(state), min(asked, self.longest))

        return {
            "retry": retry_if_exception_type(TryAgain),
            "wait": wait,
            "stop": stop_all(stop_after_delay(self.budget), stop_after_attempt(2)),
            "reraise": True,
        }


def retry_after(headers: Mapping[str, str]) -> float:
    """Read Retry-After, in seconds or as a date (RFC 9110 section 10.2.3); 0 where there is none.

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
