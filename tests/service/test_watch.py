"""Watching many jobs with one request: what a client is told, when, and how much of it."""

from __future__ import annotations

import http.client
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import psutil
import pytest
from sqlalchemy import insert

from airflow_training.jobs.description import JobDescription
from airflow_training.jobs.log import NDJSON
from airflow_training.jobs.status import JobState
from airflow_training.service.amount import Amount
from airflow_training.service.database import Job, now, open_database
from airflow_training.service.job_table import JobTable
from airflow_training.service.log_shares import GrownLog, shared_out
from airflow_training.service.machine import Machine
from airflow_training.service.runners.runner import JobKey
from airflow_training.service.statuses import Statuses
from tests.engines.postgresql import PostgreSQL
from tests.service.support import POSTGRESQL, RunningService, Tenant, age, close, on, on_both, run

KILOBYTE = 1024
# More than any machine has: such a job gets the machine for itself.
WHOLE_MACHINE = {"cpus": 100_000}
LONGEST = 30.0
# Far less than a request waits: what is answered within this time was not waited for.
AT_ONCE = 10.0


@dataclass
class News:
    """What a reply says of a job."""

    seen: str
    offset: int
    size: int
    records: bytes
    status: dict[str, Any] | None


class Follower:
    """A client that follows jobs: it knows what it was told, and asks for more."""

    def __init__(self, tenant: Tenant, *job_ids: str) -> None:
        self.tenant = tenant
        self.known = {job_id: {"offset": 0, "seen": ""} for job_id in job_ids}
        self.records = dict.fromkeys(job_ids, b"")
        self.statuses: dict[str, dict[str, Any]] = {}

    def ask(self, wait: float = LONGEST) -> dict[str, News]:
        reply = self.tenant.http.post("watch", json={"jobs": self.known, "wait": wait}, timeout=2 * LONGEST)
        news = {job_id: told for job_id, told in read(reply).items() if told}
        for job_id, told in news.items():
            assert told.offset == self.known[job_id]["offset"]
            self.known[job_id] = {"offset": told.offset + len(told.records), "seen": told.seen}
            self.records[job_id] += told.records
            if told.status:
                self.statuses[job_id] = told.status
        return news

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


def read(reply: httpx.Response) -> dict[str, News | None]:
    """A reply, job by job; None for those that are unknown."""
    assert reply.status_code == 200, reply.text
    assert (reply.headers["Content-Type"], reply.headers["Cache-Control"]) == (NDJSON, "no-store")
    rest, news = reply.content, dict[str, News | None]()
    while rest:
        line, _, rest = rest.partition(b"\n")
        facts = json.loads(line)
        job_id = facts.pop("job_id")
        assert job_id not in news
        if facts == {"unknown": True}:
            news[job_id] = None
            continue
        content, rest = rest[: facts["bytes"]], rest[facts.pop("bytes") :]
        assert content[-1:] in (b"", b"\n"), "records are whole"
        news[job_id] = News(**{"status": None, **facts}, records=content)
    return news


def records(tenant: Tenant, job_id: str) -> bytes:
    return tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).raise_for_status().content


def until_told(name: str) -> str:
    return f"while ! test -e {name}; do sleep 0.02; done"


def tell(tenant: Tenant, job_id: str, name: str) -> None:
    (tenant.work(job_id) / name).touch()


@contextmanager
def waiting(ask: Callable[[], dict[str, News]]) -> Iterator[Future[dict[str, News]]]:
    with ThreadPoolExecutor(1) as thread:
        yield thread.submit(ask)


@on_both
def test_a_line_and_the_end_are_told_to_who_waits_for_them(tenant: Tenant) -> None:
    job_id = tenant.submit(f"echo one; {until_told('go')}; echo two; {until_told('end')}; exit 7")
    follower = Follower(tenant, job_id)
    follower.ask_until(lambda: follower.lines(job_id) and follower.sees(job_id, "RUNNING"), "a line")
    assert follower.ask(wait=0) == {}

    with waiting(follower.ask) as asked:
        tell(tenant, job_id, "go")
        assert asked.result()[job_id].status is None
    assert follower.lines(job_id) == ["one", "two"]

    with waiting(follower.ask) as asked:
        tell(tenant, job_id, "end")
        assert asked.result()[job_id].status
    follower.ask_until(lambda: follower.sees(job_id, "FAILED"), "the end")
    assert follower.statuses[job_id] == tenant.status(job_id)
    assert follower.statuses[job_id]["message"] == "the command exited with status 7"
    assert follower.complete(job_id)
    assert follower.ask(wait=0) == {}


@on_both
def test_who_waits_is_told_why_his_job_waits_and_that_it_was_cancelled(tenant: Tenant) -> None:
    first, second, third = (tenant.submit(until_told("go"), resources=WHOLE_MACHINE) for _ in range(3))
    follower = Follower(tenant, third)
    follower.ask()
    follower.ask_until(lambda: follower.statuses[third]["message"].endswith(", 1 job ahead"), "the queue")
    with waiting(follower.ask) as asked:
        tenant.http.delete(f"jobs/{second}")
        told = asked.result()[third]
    assert told.status
    assert told.status["message"].endswith(", 0 jobs ahead")
    with waiting(follower.ask) as asked:
        tenant.http.delete(f"jobs/{third}")
        asked.result()
    assert follower.sees(third, "CANCELED")
    tell(tenant, first, "go")


def test_a_log_is_told_without_loss_or_repetition_however_many_replies_it_takes(tenant: Tenant) -> None:
    jobs = [tenant.submit(f"for i in 1 2 3; do seq {index} 9000; sleep 0.3; done") for index in range(2)]
    follower, largest = Follower(tenant, *jobs), 0
    while not all(map(follower.complete, jobs)):
        news = follower.ask()
        largest = max([largest, *(len(told.records) for told in news.values())])
        for job_id, told in news.items():
            if told.status and told.status["finishTime"]:
                assert told.size == len(records(tenant, job_id)), "what comes with the end is complete"
    assert 32 * KILOBYTE < largest <= 64 * KILOBYTE
    for index, job_id in enumerate(jobs):
        assert follower.lines(job_id) == [str(number) for _ in range(3) for number in range(index, 9001)]


def test_a_flood_does_not_hold_up_a_quiet_job(tenant: Tenant) -> None:
    floods = [tenant.submit("seq 1 50000") for _ in range(3)]
    for job_id in floods:
        tenant.wait(job_id)
    quiet = tenant.submit(f"{until_told('go')}; echo quiet; {until_told('end')}")
    only_quiet = Follower(tenant, quiet)
    only_quiet.ask_until(lambda: only_quiet.sees(quiet, "RUNNING"), "the start")
    follower = Follower(tenant, *floods, quiet)
    follower.known |= only_quiet.known
    assert quiet not in follower.ask()
    with waiting(only_quiet.ask) as asked:
        tell(tenant, quiet, "go")
        asked.result()
    news = follower.ask()
    assert follower.lines(quiet) == ["quiet"]
    assert all(60 * KILOBYTE < len(news[job_id].records) <= 64 * KILOBYTE for job_id in floods)
    tell(tenant, quiet, "end")


def test_of_another_tenants_job_nothing_is_told(new_tenant: Callable[[], Tenant]) -> None:
    one, other = new_tenant(), new_tenant()
    job_id = one.submit("echo mine")
    one.wait(job_id)
    asked = {"jobs": {job_id: {"offset": 0, "seen": ""}}}
    theirs, mine = other.http.post("watch", json=asked), one.http.post("watch", json=asked)
    assert theirs.content == f'{{"job_id": "{job_id}", "unknown": true}}\n'.encode()
    assert b"mine" in mine.content
    # The same id is another job of the other tenant.
    other.wait(other.submit("echo theirs", job_id))
    theirs = other.http.post("watch", json=asked)
    assert b"theirs" in theirs.content
    assert b"mine" not in theirs.content


def test_an_unknown_job_is_news_at_once_until_it_is_submitted(tenant: Tenant) -> None:
    job_id, blocker = str(uuid4()), tenant.submit(until_told("go"), resources=WHOLE_MACHINE)
    follower = Follower(tenant, blocker)
    follower.ask_until(lambda: follower.sees(blocker, "RUNNING") and not follower.ask(wait=0), "no news")
    asked = {"jobs": {**follower.known, job_id: {"offset": 0, "seen": ""}}, "wait": LONGEST}
    for _ in range(2):
        reply = tenant.http.post("watch", json=asked, timeout=AT_ONCE)
        assert read(reply) == {job_id: None}
    tenant.submit("true", job_id)
    told = read(tenant.http.post("watch", json=asked, timeout=AT_ONCE))[job_id]
    assert told
    assert told.status
    assert told.status["status"] == "PENDING"
    tell(tenant, blocker, "go")


def test_a_job_that_the_operator_removed_is_unknown(own_service: RunningService, own_tenant: Tenant) -> None:
    job_id = own_tenant.submit("echo line")
    follower = Follower(own_tenant, job_id)
    follower.ask_until(lambda: follower.complete(job_id), "the end")
    age(own_service, job_id, timedelta(days=8))
    run("prune", "--keep-days", "7", *own_service.options_of_commands)
    assert read(own_tenant.http.post("watch", json={"jobs": follower.known}, timeout=AT_ONCE)) == {job_id: None}


def test_nothing_to_watch_is_no_news_at_once(tenant: Tenant) -> None:
    assert read(tenant.http.post("watch", json={"jobs": {}, "wait": LONGEST}, timeout=AT_ONCE)) == {}


NOTHING_KNOWN = {"offset": 0, "seen": ""}


@pytest.mark.parametrize(
    ("body", "what"),
    [
        ("", "the body: Invalid JSON"),
        ("{", "the body: Invalid JSON"),
        ("[]", "the body: "),
        ("{}", "jobs: Field required"),
        ({"jobs": {"a": {"offset": -1, "seen": ""}}}, "jobs.a.offset: "),
        ({"jobs": {"a": {"offset": "0", "seen": ""}}}, "jobs.a.offset: "),
        ({"jobs": {"a": {"offset": 0, "seen": "x" * 65}}}, "jobs.a.seen: "),
        ({"jobs": {"a": {"offset": 0}}}, "jobs.a.seen: "),
        ({"jobs": {"../a": NOTHING_KNOWN}}, "String should match pattern"),
        ({"jobs": {"a\n": NOTHING_KNOWN}}, "String should match pattern"),
        ({"jobs": {"a" * 65: NOTHING_KNOWN}}, "String should match pattern"),
        ({"jobs": {}, "wait": -1}, "wait: "),
        ({"jobs": {}, "wait": 30.5}, "wait: "),
        ({"jobs": {}, "wait": float("nan")}, "wait: "),
        ({"jobs": {str(number): NOTHING_KNOWN for number in range(10_001)}}, "at most 10000"),
        ({"jobs": {f"/{number}": NOTHING_KNOWN for number in range(1000)}}, "and 990 mistakes more"),
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
    asked = {"jobs": {str(uuid4()): {"offset": 10**9, "seen": "0" * 12} for _ in range(10_000)}}
    assert read(tenant.http.post("watch", json=asked)) == dict.fromkeys(asked["jobs"])


class Waiting(http.client.HTTPConnection):
    """A request that was sent, and whose reply was not read yet."""

    def __init__(self, tenant: Tenant, jobs: Mapping[str, object], request_id: str = "waits") -> None:
        super().__init__(urlsplit(tenant.service.url).netloc, timeout=2 * LONGEST)
        headers = {"Authorization": tenant.http.headers["Authorization"], "X-Request-ID": request_id}
        self.request("POST", "/api/v2/watch", json.dumps({"jobs": jobs, "wait": LONGEST}), headers)


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

    assert own_tenant.wait_for(over, "the end of the request")["milliseconds"] < 1000 * AT_ONCE


def test_the_service_stops_as_soon_while_requests_wait(own_service: RunningService, own_tenant: Tenant) -> None:
    job_id = own_tenant.submit("exec sleep 4321")
    follower = Follower(own_tenant, job_id)
    follower.ask_until(lambda: follower.sees(job_id, "RUNNING") and not follower.ask(wait=0), "no news")
    connections = [Waiting(own_tenant, follower.known) for _ in range(10)]
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
    own_tenant.wait_for(lambda: httpx.get(f"{own_service.url}/healthz").is_success, "the service")
    tell(own_tenant, job_id, "end")
    follower.ask_until(lambda: follower.complete(job_id), "the end")
    assert follower.lines(job_id) == ["line"]
    assert follower.statuses[job_id]["status"] == "SUCCEEDED"


def test_a_thousand_jobs_are_watched_with_one_request(own_service: RunningService, own_tenant: Tenant) -> None:
    jobs = [f"job-{number}" for number in range(1000)]
    put(own_service, own_tenant.name, jobs)
    follower = Follower(own_tenant, *jobs)
    news = follower.ask()
    assert list(news) == jobs
    for number, job_id in enumerate(jobs):
        assert follower.lines(job_id) == [f"line of {number}"]
        assert follower.statuses[job_id]["status"] == "SUCCEEDED"
        assert news[job_id].size == len(news[job_id].records)
    assert follower.ask(wait=0) == {}
    with (own_service.files.job_state(own_tenant.name, jobs[500]) / "log.ndjson").open("ab") as log:
        log.write(b'{"line": "one more"}\n')
    assert {job_id: told.records for job_id, told in follower.ask().items()} == {jobs[500]: b'{"line": "one more"}\n'}


def put(service: RunningService, tenant: str, jobs: list[str]) -> None:
    """Have jobs that have ended."""
    sessions = open_database(service.database_url)
    common = {"tenant": tenant, "name": "job", "description": "{}", "cpus": 1, "memory": 1, "gpus": 0}
    times = dict.fromkeys(("submitted", "started", "finished"), now())
    over = {**common, **times, "state": JobState.SUCCEEDED, "claimed": True}
    with sessions.begin() as session:
        session.execute(insert(Job), [{**over, "id": job_id} for job_id in jobs])
    close(sessions())
    for number, job_id in enumerate(jobs):
        folder = service.files.job_state(tenant, job_id)
        folder.mkdir(parents=True)
        (folder / "log.ndjson").write_text(f'{{"line": "line of {number}"}}\n')


def test_a_status_that_changes_while_it_is_read_is_read_again(sessions_url: str) -> None:
    sessions = open_database(sessions_url)
    machine = Machine(Amount(1, 1024, 0), ())
    key, description = JobKey("tenant", "job"), JobDescription.from_wire(JOB)

    class Changing(JobTable):
        """A table whose job is cancelled right after it was read."""

        def read(self, keys: Any) -> Any:
            found = super().read(keys)
            self.cancel(key)
            return found

    jobs = Changing(sessions, machine)
    jobs.submit(key, description, Amount(1, 1, 0))
    statuses = Statuses(jobs, machine)
    assert json.loads(statuses.read([key])[key].document)["status"] == "PENDING"
    assert json.loads(statuses.read([key])[key].document)["status"] == "CANCELED"
    close(sessions())


JOB = {"job": {"name": "job", "execution": {"command": "true", "completionTime": "1h"}}}


def grown(folder: Path, name: str, content: bytes, *, ended: bool = False) -> GrownLog:
    (folder / name).write_bytes(content)
    return GrownLog(str(folder / name), 0, len(content), ended)


def lengths(*logs: GrownLog) -> list[int]:
    shares = shared_out(logs)
    return [len(shares.get(log.file, b"")) for log in logs]


def test_small_logs_are_sent_whole_and_big_ones_share_the_rest(tmp_path: Path) -> None:
    small = [grown(tmp_path, f"small{number}", b"x" * 99 + b"\n") for number in range(100)]
    big = [grown(tmp_path, f"big{number}", (b"x" * 99 + b"\n") * 5000) for number in range(10)]
    sent = lengths(*big[:5], *small, *big[5:])
    assert sent[5:105] == [100] * 100
    shares = sent[:5] + sent[105:]
    assert max(shares) == min(shares)
    assert 250 * KILOBYTE < sum(sent) <= 256 * KILOBYTE
    assert lengths(big[0]) == [64 * KILOBYTE // 100 * 100]


def test_a_long_record_is_sent_whole_where_it_fits_or_comes_first(tmp_path: Path) -> None:
    longest = grown(tmp_path, "longest", b"x" * (KILOBYTE * KILOBYTE - 1) + b"\n" + b"y\n")
    long = grown(tmp_path, "long", b"x" * (100 * KILOBYTE - 1) + b"\n" + b"y\n")
    short = grown(tmp_path, "short", b"short\n")
    assert lengths(longest, short) == [KILOBYTE * KILOBYTE, 0]
    assert lengths(short, longest) == [6, 0]
    assert lengths(short, long, longest) == [6, 100 * KILOBYTE, 0]
    too_long = grown(tmp_path, "too long", b"x" * (KILOBYTE * KILOBYTE) + b"\n")
    assert lengths(too_long, short) == [0, 6]


def test_where_a_record_of_each_is_too_much_the_first_have_theirs(tmp_path: Path) -> None:
    logs = [grown(tmp_path, str(number), (b"x" * 199 + b"\n") * 9) for number in range(2000)]
    sent = lengths(*logs)
    served = 256 * KILOBYTE // 200
    assert sent == [200] * served + [0] * (2000 - served)
    assert lengths(*logs[served:])[:600] == [200] * 600


def test_a_record_that_is_being_written_is_sent_when_it_is_whole_or_the_job_has_ended(tmp_path: Path) -> None:
    assert lengths(grown(tmp_path, "log", b"half of a rec")) == [0]
    assert lengths(grown(tmp_path, "log", b"one\nhalf of a rec")) == [4]
    assert lengths(grown(tmp_path, "log", b"one\nhalf of a rec", ended=True)) == [17]
    assert lengths(grown(tmp_path, "log", b"half of a rec", ended=True)) == [13]


def test_a_log_that_was_removed_just_now_is_no_news(tmp_path: Path) -> None:
    log = grown(tmp_path, "log", b"one\n")
    (tmp_path / "log").unlink()
    assert lengths(log) == [0]
