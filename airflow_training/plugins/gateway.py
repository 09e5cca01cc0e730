"""The pages' requests to training services: one client for each service, and each answer cached for a moment."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakValueDictionary

from anyio import fail_after
from cachetools import LRUCache
from starlette.concurrency import run_in_threadpool

from airflow_training.api.status import JobStatus
from airflow_training.client.auth import without_credentials
from airflow_training.client.client import TrainingClient
from airflow_training.client.retry import PAGE
from airflow_training.exceptions import AuthenticationError, InvalidConnection, ServiceUnavailable, TrainingError
from airflow_training.hooks.training import TrainingHook
from airflow_training.per_loop import PerLoop
from airflow_training.plugins.display import utf8_safe

if TYPE_CHECKING:
    from airflow_training.plugins.access import Rights

T = TypeVar("T")

TIMEOUT = 5.0
"""Seconds that a page waits for the service."""

FRESH = 2.0
"""Seconds for which an answer or a failure is reused."""

STATUS = "status"
"""The name of the question for the status of a job."""

# Seconds after which a connection is read again, since it may have been edited or deleted.
_REREAD = 30.0
_MAX_CLIENTS = 32
# Bytes of the answers kept for the case that the service is unreachable next time, and the size assumed of an object.
_MAX_BYTES = 64 * 1024 * 1024
_OBJECT = 2000

# An event loop holds no reference to its tasks.
_lifetimes: set[asyncio.Task[None]] = set()


@dataclass(frozen=True)
class ServiceRef:
    """A service: a connection of Airflow, and the version of the job API if it is not the connection's."""

    conn_id: str
    version: str | None = None


def is_training_connection(conn_id: str) -> bool:
    """Whether a connection is one to a training service: the credentials of others are for other servers.

    Raises:
        InvalidConnection: It does not exist.
        ServiceUnavailable: It cannot be read at the moment.
    """
    return bool(TrainingHook(conn_id).connection().conn_type == TrainingHook.conn_type)


def client_of(service: ServiceRef) -> TrainingClient:
    """A client that waits no longer than a page does; raises InvalidConnection."""
    if not is_training_connection(service.conn_id):
        raise InvalidConnection(
            f"The connection {service.conn_id!r} is not of the type Training service, so the training page"
            " does not use its login and password.",
            code="AT-109",
        )
    settings = TrainingHook(service.conn_id).client(version=service.version, policy=PAGE).settings
    return TrainingClient(replace(settings, timeout=min(settings.timeout, TIMEOUT)), PAGE)


@dataclass
class _Pooled:
    client: TrainingClient
    read_at: float
    released: asyncio.Event = field(default_factory=asyncio.Event)


class ClientPool:
    """The clients of one event loop, one for each service."""

    def __init__(self) -> None:
        self._pooled: dict[ServiceRef, _Pooled] = {}
        self._reading: WeakValueDictionary[ServiceRef, asyncio.Lock] = WeakValueDictionary()

    async def get(self, service: ServiceRef) -> TrainingClient:
        """The client of a service; raises InvalidConnection, or ServiceUnavailable if the connection cannot be read."""
        # A lock for each service: the connection of another one may be slow to read.
        async with self._reading.setdefault(service, asyncio.Lock()):
            pooled = self._pooled.pop(service, None)
            if not pooled or monotonic() - pooled.read_at > _REREAD:
                pooled = await self._read(service, pooled)
            self._pooled[service] = pooled
            if len(self._pooled) > _MAX_CLIENTS:
                self._pooled.pop(next(iter(self._pooled))).released.set()
            return pooled.client

    def forget(self, service: ServiceRef) -> None:
        """Read the connection again next time, since its credentials were refused."""
        if pooled := self._pooled.get(service):
            pooled.read_at = -_REREAD

    async def _read(self, service: ServiceRef, known: _Pooled | None) -> _Pooled:
        try:
            # In a thread, since it queries Airflow's database.
            client = await asyncio.to_thread(client_of, service)
        except ServiceUnavailable:
            if not known:
                raise
            # A secrets backend that fails for a moment does not end what works.
            known.read_at = monotonic()
            return known
        except BaseException:
            if known:
                known.released.set()
            raise
        if known and known.client.settings == client.settings:
            known.read_at = monotonic()
            return known
        if known:
            known.released.set()
        pooled = _Pooled(client, monotonic())
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        lifetime = asyncio.ensure_future(_keep_open(pooled, opened))
        _lifetimes.add(lifetime)
        lifetime.add_done_callback(_lifetimes.discard)
        await opened
        return pooled


async def _keep_open(pooled: _Pooled, opened: asyncio.Future[None]) -> None:
    """Keep a client open in a task, which ends with the event loop and then closes the connections."""
    try:
        async with pooled.client:
            opened.set_result(None)
            await pooled.released.wait()
            # Requests that run just now get an answer.
            await asyncio.sleep(TIMEOUT)
    except Exception as error:  # noqa: BLE001 - raised where the client is awaited
        if not opened.done():
            opened.set_exception(error)


@dataclass(frozen=True)
class _Question:
    service: ServiceRef
    name: str
    job_id: str


@dataclass(frozen=True)
class Answer(Generic[T]):
    """What a service answered, or why it did not.

    Attributes:
        value: The answer; if the last request failed the one before, and None if there is none.
        message: Why the last request failed; empty if it did not. It may contain URLs and user names.
        since: When the service answered last.
        asked_at: When the last request was sent, by the monotonic clock.
        code: The code of the failure, which any user may see; empty if there is none.
    """

    value: T | None
    message: str
    since: datetime | None
    asked_at: float
    code: str = ""

    @property
    def reachable(self) -> bool:
        """Whether the last request succeeded."""
        return not self.message

    def to_dict(self) -> dict[str, Any]:
        """The state of the service, as a page shows it."""
        since = self.since.isoformat(timespec="milliseconds").replace("+00:00", "Z") if self.since else None
        return {"reachable": self.reachable, "message": self.message, "since": since}


class Gateway:
    """Sends requests to services, for one event loop."""

    def __init__(self) -> None:
        self._clients = ClientPool()
        self._answers: LRUCache[_Question, Answer[Any]] = LRUCache(_MAX_BYTES, getsizeof=_size)
        self._running: dict[_Question, asyncio.Task[Answer[Any]]] = {}

    async def ask(
        self,
        service: ServiceRef,
        name: str,
        job_id: str,
        question: Callable[[TrainingClient], Awaitable[T]],
        fresh: float | None = None,
    ) -> Answer[T]:
        """Send a request to a service, or reuse a fresh answer.

        Args:
            service: The service.
            name: The name of the question.
            job_id: The job that it is about; empty if it is about all jobs.
            question: Sends the request.
            fresh: Seconds for which the answer is reused; FRESH by default.
        """
        key = _Question(service, name, job_id)
        known = self._answers.get(key)
        if known and monotonic() - known.asked_at < (FRESH if fresh is None else fresh):
            return known
        running = self._running.get(key)
        if not running:
            running = self._running[key] = asyncio.ensure_future(self._send(key, question))
            running.add_done_callback(lambda _: self._running.pop(key, None))
        # A tab that is closed does not cancel the request of the others.
        return await asyncio.shield(running)

    def forget(self, service: ServiceRef, job_id: str) -> None:
        """Expire the answers about a job, and those about all jobs."""
        for key, answer in list(self._answers.items()):
            if key.service == service and key.job_id in ("", job_id):
                self._answers[key] = replace(answer, asked_at=-math.inf)

    async def _send(self, key: _Question, question: Callable[[TrainingClient], Awaitable[T]]) -> Answer[T]:
        known: Answer[T] | None = self._answers.get(key)
        try:
            with fail_after(TIMEOUT):
                value = await question(await self._clients.get(key.service))
            answer = Answer[T](value, "", datetime.now(timezone.utc), monotonic())
        except (TrainingError, TimeoutError) as error:
            if isinstance(error, AuthenticationError):
                self._clients.forget(key.service)
            message = str(error) or f"The training service did not answer within {TIMEOUT:g} seconds."
            code = error.code if isinstance(error, TrainingError) else ""
            last, since = (known.value, known.since) if known else (None, None)
            answer = Answer(last, utf8_safe(without_credentials(message)), since, monotonic(), code)
        if key.name == STATUS and _has_ended(answer) and not _has_ended(known):
            # Curves and log from before the end are incomplete.
            self.forget(key.service, key.job_id)
        self._answers[key] = answer
        return answer


def _has_ended(answer: Answer[Any] | None) -> bool:
    return bool(answer and isinstance(answer.value, JobStatus) and answer.value.state.ended)


def _size(answer: Answer[Any]) -> int:
    value = answer.value
    return len(value) if isinstance(value, bytes) else _OBJECT * (1 + len(value) if isinstance(value, list) else 1)


gateway = PerLoop(Gateway)
"""The gateway of the running event loop."""


async def visible_to(rights: Rights, service: ServiceRef, answer: Answer[Any]) -> Answer[Any]:
    """An answer as a user may see it: the full message is for users with read access to the connection."""
    if answer.reachable or await run_in_threadpool(rights.connection, service.conn_id):
        return answer
    code = f" [{answer.code}]" if answer.code else ""
    message = (
        f"The training service is unreachable or returned an error{code}. Users with read access to the connection"
        f" {service.conn_id} see the details here."
    )
    return replace(answer, message=message)
