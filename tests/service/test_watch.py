"""Watching many jobs with one request: what a client is told, and when."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import uuid4

from sqlalchemy import insert

from airflow_training.api.status import JobState
from airflow_training.service.database.models import Job, now, open_database
from tests.service.support import RunningService, Tenant, age, close, on_both, run
from tests.service.watching import AT_ONCE, KILOBYTE, LONGEST, Follower, read, records, tell, until_told, waiting

# More than any machine has: such a job gets the machine for itself.
WHOLE_MACHINE = {"cpus": 100_000}


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
    assert follower.statuses[job_id]["message"] == "the command exited with status 7 [AT-451]"
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


def test_lines_are_kept_back_to_come_together_and_an_end_is_not(tenant: Tenant) -> None:
    talks, ends = (
        tenant.submit("while ! test -e stop; do echo on; sleep 0.1; done"),
        tenant.submit(f"{until_told('end')}; echo last"),
    )
    follower = Follower(tenant, talks, ends)
    follower.ask_until(lambda: follower.sees(talks, "RUNNING") and follower.sees(ends, "RUNNING"), "the start of both")

    told = follower.ask(batch_window=2)
    assert len(told[talks].records.splitlines()) > 5
    with waiting(lambda: follower.ask(batch_window=10)) as asked:
        tell(tenant, ends, "end")
        told = asked.result()
    assert told[ends].status
    assert not follower.statuses[talks]["finishTime"]
    tell(tenant, talks, "stop")


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
    asked = {"jobs": {job_id: {"offset": 0, "etag": ""}}}
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
    asked = {"jobs": {**follower.known, job_id: {"offset": 0, "etag": ""}}, "wait": LONGEST}
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
