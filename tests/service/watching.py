"""A client that watches jobs, as the tests need it."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from airflow_training.api.log import NDJSON
from tests.service.support import Tenant

KILOBYTE = 1024
LONGEST = 30.0
# Far less than a request waits: a reply within this time did not wait.
AT_ONCE = 20.0


@dataclass
class Event:
    """The event of a job in a reply."""

    etag: str
    offset: int
    size: int
    records: bytes
    status: dict[str, Any] | None


class Follower:
    """A client that watches jobs and keeps their cursors."""

    def __init__(self, tenant: Tenant, *job_ids: str) -> None:
        self.tenant = tenant
        self.known = {job_id: {"offset": 0, "etag": ""} for job_id in job_ids}
        self.records = dict.fromkeys(job_ids, b"")
        self.statuses: dict[str, dict[str, Any]] = {}

    def ask(self, wait: float = LONGEST, batch_window: float = 0) -> dict[str, Event]:
        request = {"jobs": self.known, "wait": wait, "batch_window": batch_window}
        reply = self.tenant.http.post("watch", json=request, timeout=2 * LONGEST)
        events = {job_id: event for job_id, event in read(reply).items() if event}
        for job_id, event in events.items():
            assert event.offset == self.known[job_id]["offset"]
            self.known[job_id] = {"offset": event.offset + len(event.records), "etag": event.etag}
            self.records[job_id] += event.records
            if event.status:
                self.statuses[job_id] = event.status
        return events

    def ask_until(self, reached: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + LONGEST
        while not reached():
            assert time.monotonic() < deadline, f"waited in vain for {what}"
            self.ask(wait=1)

    def lines(self, job_id: str) -> list[str]:
        lines = [json.loads(record)["line"] for record in self.records[job_id].splitlines()]
        return [line for line in lines if not line.startswith("[service] ")]

    def sees(self, job_id: str, state: str) -> bool:
        return self.statuses.get(job_id, {}).get("status") == state

    def complete(self, job_id: str) -> bool:
        status = self.statuses.get(job_id, {"finishTime": None})
        return bool(status["finishTime"]) and self.records[job_id] == records(self.tenant, job_id)


def read(reply: httpx.Response) -> dict[str, Event | None]:
    """A reply, job by job; None for those that are unknown."""
    assert reply.status_code == 200, reply.text
    assert (reply.headers["Content-Type"], reply.headers["Cache-Control"]) == (NDJSON, "no-store")
    rest, events = reply.content, dict[str, Event | None]()
    while rest:
        line, _, rest = rest.partition(b"\n")
        facts = json.loads(line)
        job_id = facts.pop("job_id")
        assert job_id not in events
        if facts == {"unknown": True}:
            events[job_id] = None
            continue
        content, rest = rest[: facts["bytes"]], rest[facts.pop("bytes") :]
        assert content[-1:] in (b"", b"\n"), "records are whole"
        events[job_id] = Event(**{"status": None, **facts}, records=content)
    return events


def records(tenant: Tenant, job_id: str) -> bytes:
    return tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).raise_for_status().content


def until_told(name: str) -> str:
    return f"while ! test -e {name}; do sleep 0.02; done"


def tell(tenant: Tenant, job_id: str, name: str) -> None:
    (tenant.work(job_id) / name).touch()


@contextmanager
def waiting(ask: Callable[[], dict[str, Event]]) -> Iterator[Future[dict[str, Event]]]:
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(ask)


class Waiting(http.client.HTTPConnection):
    """A request that was sent, and whose reply was not read yet."""

    def __init__(self, tenant: Tenant, jobs: Mapping[str, object], request_id: str = "waits") -> None:
        super().__init__(urlsplit(tenant.service.url).netloc, timeout=2 * LONGEST)
        headers = {"Authorization": tenant.http.headers["Authorization"], "X-Request-ID": request_id}
        self.request("POST", "/api/v2/watch", json.dumps({"jobs": jobs, "wait": LONGEST}), headers)
