"""Requests that watch jobs: what is refused, and what becomes of those that wait."""

from __future__ import annotations

import json
import signal
import time
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from tests.engines.postgresql import PostgreSQL
from tests.patience import wait_for
from tests.service.support import POSTGRESQL, RunningService, Tenant, on, run
from tests.service.watching import AT_ONCE, KILOBYTE, LONGEST, Follower, Waiting, read, tell, until_told


def test_nothing_to_watch_is_no_news_at_once(tenant: Tenant) -> None:
    assert read(tenant.http.post("watch", json={"jobs": {}, "wait": LONGEST}, timeout=AT_ONCE)) == {}


NOTHING_KNOWN = {"offset": 0, "etag": ""}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("", "the body: Invalid JSON"),
        ("{", "the body: Invalid JSON"),
        ("[]", "the body: "),
        ("{}", "jobs: Field required"),
        ({"jobs": {"a": {"offset": -1, "etag": ""}}}, "jobs.a.offset: "),
        ({"jobs": {"a": {"offset": "0", "etag": ""}}}, "jobs.a.offset: "),
        ({"jobs": {"a": {"offset": 0, "etag": "x" * 65}}}, "jobs.a.etag: "),
        ({"jobs": {"a": {"offset": 0}}}, "jobs.a.etag: "),
        ({"jobs": {"../a": NOTHING_KNOWN}}, "String should match pattern"),
        ({"jobs": {"a\n": NOTHING_KNOWN}}, "String should match pattern"),
        ({"jobs": {"a" * 65: NOTHING_KNOWN}}, "String should match pattern"),
        ({"jobs": {}, "wait": -1}, "wait: "),
        ({"jobs": {}, "wait": 30.5}, "wait: "),
        ({"jobs": {}, "wait": float("nan")}, "wait: "),
        ({"jobs": {str(number): NOTHING_KNOWN for number in range(10_001)}}, "at most 10000"),
        ({"jobs": {f"/{number}": NOTHING_KNOWN for number in range(1000)}}, "and 990 more"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_request_that_is_none_is_refused_with_what_is_wrong_in_it(tenant: Tenant, body: object, what: str) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    reply = tenant.http.post("watch", content=content, timeout=AT_ONCE)
    assert reply.status_code == 422
    assert what in reply.json()["error"]["message"]
    assert len(reply.text) < 4 * KILOBYTE


def test_a_request_of_more_than_a_megabyte_is_refused(tenant: Tenant) -> None:
    reply = tenant.http.post("watch", content=b" " * (KILOBYTE * KILOBYTE + 1))
    assert reply.status_code == 413


def test_ten_thousand_jobs_are_taken_in_one_request(tenant: Tenant) -> None:
    asked = {"jobs": {str(uuid4()): {"offset": 10**9, "etag": "0" * 12} for _ in range(10_000)}}
    assert read(tenant.http.post("watch", json=asked)) == dict.fromkeys(asked["jobs"])


def test_many_who_wait_hold_up_nobody_and_are_all_told(tenant: Tenant) -> None:
    job_id = tenant.submit(f"{until_told('go')}; echo line")
    follower = Follower(tenant, job_id)
    follower.ask_until(lambda: follower.sees(job_id, "RUNNING") and not follower.ask(wait=0), "no news")
    # More than the service has threads for requests.
    connections = [Waiting(tenant, follower.known) for _ in range(100)]
    began = time.monotonic()
    assert tenant.status(job_id)["status"] == "RUNNING"
    assert time.monotonic() - began < AT_ONCE
    tell(tenant, job_id, "go")
    for connection in connections:
        assert job_id in connection.getresponse().read().decode()
        connection.close()
    assert time.monotonic() - began < LONGEST


def test_a_client_that_goes_away_is_not_waited_for(own_service: RunningService, own_tenant: Tenant) -> None:
    job_id = own_tenant.submit("exec sleep 4321")
    follower = Follower(own_tenant, job_id)
    follower.ask_until(lambda: follower.sees(job_id, "RUNNING") and not follower.ask(wait=0), "no news")
    Waiting(own_tenant, follower.known, "goes-away").close()

    def over() -> dict[str, Any] | None:
        requests = map(json.loads, (own_service.data / "access.log").read_text().splitlines())
        return next((facts for facts in requests if facts["request_id"] == "goes-away"), None)

    assert wait_for(over, "the end of the request")["milliseconds"] < 1000 * AT_ONCE


def test_the_service_stops_as_soon_while_requests_wait(own_service: RunningService, own_tenant: Tenant) -> None:
    job_id = own_tenant.submit("exec sleep 4321")
    follower = Follower(own_tenant, job_id)
    follower.ask_until(lambda: follower.sees(job_id, "RUNNING") and not follower.ask(wait=0), "no news")
    connections = [Waiting(own_tenant, follower.known) for _ in range(10)]
    # What is answered later has come later: the others have been taken up.
    for _ in range(2):
        own_tenant.http.get("jobs").raise_for_status()
    process = psutil.Process(own_service.process.pid)
    process.send_signal(signal.SIGTERM)
    for connection in connections:
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (200, b"")
        connection.close()
    assert process.wait(5) == 0
    assert "timeout" not in own_service.process.output.read_text()


def test_a_client_that_was_removed_while_it_waits_is_told_nothing_more(
    own_service: RunningService, own_tenant: Tenant
) -> None:
    job_id = own_tenant.submit(f"{until_told('go')}; echo secret")
    follower = Follower(own_tenant, job_id)
    follower.ask_until(lambda: follower.sees(job_id, "RUNNING") and not follower.ask(wait=0), "no news")
    colleague = Tenant(own_service, own_tenant.name)
    connection = Waiting(colleague, follower.known)
    run("clients", "remove", colleague.credentials.client_id, *own_service.options_of_commands)
    tell(own_tenant, job_id, "go")
    reply = connection.getresponse()
    assert (reply.status, b"secret" in reply.read()) == (401, False)
    connection.close()
    assert colleague.http.post("watch", json={"jobs": {}}).status_code == 401
    colleague.http.close()


@on(POSTGRESQL)
def test_who_waits_while_the_database_goes_away_is_told_so_and_misses_nothing(
    postgresql: PostgreSQL, own_service: RunningService, own_tenant: Tenant
) -> None:
    job_id = own_tenant.submit(f"{until_told('go')}; echo line; {until_told('end')}")
    follower = Follower(own_tenant, job_id)
    follower.ask_until(lambda: follower.sees(job_id, "RUNNING") and not follower.ask(wait=0), "no news")
    connection = Waiting(own_tenant, follower.known)
    postgresql.stop()
    try:
        tell(own_tenant, job_id, "go")
        reply = connection.getresponse()
        assert (reply.status, json.loads(reply.read())["error"]["code"]) == (503, "503")
        connection.close()
        assert own_tenant.http.post("watch", json={"jobs": follower.known}).status_code == 503
    finally:
        postgresql.start()
    wait_for(lambda: httpx.get(f"{own_service.url}/healthz").is_success, "the service")
    tell(own_tenant, job_id, "end")
    follower.ask_until(lambda: follower.complete(job_id), "the end")
    assert follower.lines(job_id) == ["line"]
    assert follower.statuses[job_id]["status"] == "SUCCEEDED"
