"""Questions to a service: asked once for all who want to know, and the answer kept for a moment."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from time import monotonic
from typing import Any, Generic, TypeVar

from anyio import fail_after
from cachetools import LRUCache

from airflow_training.api.status import JobStatus
from airflow_training.client.auth import without_login
from airflow_training.client.client import TrainingClient
from airflow_training.exceptions import AuthenticationError, TrainingError
from airflow_training.per_loop import PerLoop
from airflow_training.plugins.clients import PATIENCE, Clients, Service
from airflow_training.plugins.texts import sendable

T = TypeVar("T")

FRESH = 2.0
"""Seconds for which an answer is given out again, and so that there was none."""

STATUS = "status"
"""The question for the status of a job."""

# Bytes of the answers that are kept in case that the service cannot be asked next time; what an object is taken for.
_MOST = 64 * 1024 * 1024
_OBJECT = 2000


@dataclass(frozen=True)
class _Question:
    service: Service
    what: str
    job_id: str


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a service answered, or why it did not.

    Attributes:
        value: The answer; where there is none now the last one, and None where there never was one.
        message: Why there is none now; empty where there is. It may tell addresses, and who logs in there.
        code: The same for all; empty where there is none.
        since: When it was answered last.
        asked_at: When it was asked, by the clock that goes on evenly.
    """

    value: T | None
    message: str
    since: datetime | None
    asked_at: float
    code: str = ""

    @property
    def reachable(self) -> bool:
        """Whether the service has answered."""
        return not self.message

    def to_dict(self) -> dict[str, Any]:
        """What a page tells of the service."""
        since = self.since.isoformat(timespec="milliseconds").replace("+00:00", "Z") if self.since else None
        return {"reachable": self.reachable, "message": self.message, "since": since}


class Asking:
    """Asks services; of one event loop."""

    def __init__(self) -> None:
        self._clients = Clients()
        self._answers: LRUCache[_Question, Answer[Any]] = LRUCache(_MOST, getsizeof=_size)
        self._asked: dict[_Question, asyncio.Task[Answer[Any]]] = {}

    async def ask(
        self,
        service: Service,
        what: str,
        job_id: str,
        question: Callable[[TrainingClient], Awaitable[T]],
        fresh: float | None = None,
    ) -> Answer[T]:
        """Ask a service, or give out what it answered a moment ago.

        Args:
            service: The service.
            what: Names the question.
            job_id: The job that it is about; empty where it is about all of them.
            question: Asks it.
            fresh: Seconds for which the answer is given out again, where that differs.
        """
        key = _Question(service, what, job_id)
        known = self._answers.get(key)
        if known and monotonic() - known.asked_at < (FRESH if fresh is None else fresh):
            return known
        asked = self._asked.get(key)
        if not asked:
            asked = self._asked[key] = asyncio.ensure_future(self._ask(key, service, question))
            asked.add_done_callback(lambda _: self._asked.pop(key, None))
        # Whoever goes away does not take the answer away from the others.
        return await asyncio.shield(asked)

    def forget(self, service: Service, job_id: str) -> None:
        """Ask again for what was changed: a job, and so the list of all."""
        for key, answer in list(self._answers.items()):
            if key.service == service and key.job_id in ("", job_id):
                self._answers[key] = replace(answer, asked_at=-math.inf)

    async def _ask(
        self, key: _Question, service: Service, question: Callable[[TrainingClient], Awaitable[T]]
    ) -> Answer[T]:
        known: Answer[T] | None = self._answers.get(key)
        try:
            with fail_after(PATIENCE):
                value = await question(await self._clients.get(service))
            answer = Answer[T](value, "", datetime.now(timezone.utc), monotonic())
        except (TrainingError, TimeoutError) as error:
            if isinstance(error, AuthenticationError):
                self._clients.forget(service)
            said = str(error) or f"The training service did not answer within {PATIENCE:g} seconds."
            code = error.code if isinstance(error, TrainingError) else ""
            last, since = (known.value, known.since) if known else (None, None)
            answer = Answer(last, sendable(without_login(said)), since, monotonic(), code)
        if key.what == STATUS and _has_ended(answer) and not _has_ended(known):
            # What was told of it before is not its last word.
            self.forget(service, key.job_id)
        self._answers[key] = answer
        return answer


def _has_ended(answer: Answer[Any] | None) -> bool:
    return bool(answer and isinstance(answer.value, JobStatus) and answer.value.state.ended)


def _size(answer: Answer[Any]) -> int:
    value = answer.value
    return len(value) if isinstance(value, bytes) else _OBJECT * (1 + len(value) if isinstance(value, list) else 1)


asking = PerLoop(Asking)
"""That of the event loop that runs."""
