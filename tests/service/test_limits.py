"""Jobs that exceed a limit: they end with the reason, and the service stays responsive."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import obstore
import psutil
import pytest
from obstore.exceptions import BaseError
from obstore.store import S3Store

from airflow_training.service.runners.process.cgroup import Cgroup
from airflow_training.service.runners.run_folder import JobLimits, Spec, unique_name
from airflow_training.service.runners.supervisor.time_and_disk_limits import PROCESSES, Limiter
from airflow_training.service.runners.supervisor.usage import Sample
from tests.patience import PATIENCE, SLOWNESS, wait_for
from tests.service.support import RunningService, Tenant

HOG = "python3 -c 'x = bytearray(400 * 1024 * 1024); import time; time.sleep(600)'"
HOG_IN_A_CHILD = f"({HOG}); echo survived; sleep 600"
BUSY = """python3 -c '
import time
held = b"x" * (100 * 1024 * 1024)
while time.process_time() < 5: pass
'"""
# Far from a fork bomb, which must not run if nothing else would stop it.
MANY = "i=0; while [ $i -lt {number} ]; do sleep 600 & i=$((i+1)); done; wait"
FORK_BOMB = "bomb() { bomb & bomb; }; bomb" if Cgroup.available() else MANY.format(number=PROCESSES + 500)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service with narrow limits."""
    options = ("--job-disk", "20", "--job-log", "1", "--cpus", "2", "--memory", "4000")
    service = RunningService(tmp_path_factory.mktemp("service"), options=options)
    with service.running():
        yield service


@contextmanager
def responsive(service: RunningService) -> Iterator[None]:
    """The service answers within seconds, all the time."""
    slowest: list[float] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=PATIENCE) as client:
            while not over.is_set():
                began = time.monotonic()
                client.get(f"{service.url}/healthz").raise_for_status()
                slowest.append(time.monotonic() - began)
                over.wait(0.1)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        over.set()
        asking.join()
    assert slowest
    assert max(slowest) < 5 * SLOWNESS


@pytest.mark.parametrize("command", [HOG, HOG_IN_A_CHILD], ids=["itself", "in a child"])
def test_a_memory_hog_is_ended_with_a_reason(service: RunningService, tenant: Tenant, command: str) -> None:
    with responsive(service):
        status = tenant.wait(tenant.submit(command, resources={"memory": 300}))
    assert (status["status"], status["message"]) == ("FAILED", "out of memory: used 300 of 300 MB [AT-452]")


def test_a_fork_bomb_is_ended_with_a_reason(service: RunningService, tenant: Tenant) -> None:
    with responsive(service):
        job_id = tenant.submit(FORK_BOMB)
        status = tenant.wait(job_id)
    assert status["status"] == "FAILED"
    assert status["message"] in {
        f"too many processes: {PROCESSES} and more [AT-455]",
        f"out of memory: used {4000 // 2} of {4000 // 2} MB [AT-452]",
    }
    folder = str(tenant.work(job_id))
    assert not [one for one in psutil.process_iter(["cwd"]) if (one.info["cwd"] or "").startswith(folder)]
    # The machine is free for the next one.
    assert tenant.wait(tenant.submit("true"))["status"] == "SUCCEEDED"


def test_a_flood_of_log_is_cut_and_the_job_goes_on(service: RunningService, tenant: Tenant) -> None:
    with responsive(service):
        job_id = tenant.submit("yes | head -c 50000000; touch done")
        assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert (tenant.folder(job_id) / "done").exists()
    log = tenant.whole_log(job_id)
    assert len(log) < 1024 * 1024
    assert "[service] The log has reached its limit of 1048576 bytes: further output of the job is lost." in log
    lost = int(log.splitlines()[-1].removeprefix("[service] ").split()[0])
    assert lost + log.count("y\n") * 2 == 50_000_000


def test_a_job_that_fills_its_disk_is_ended_with_a_reason(service: RunningService, tenant: Tenant) -> None:
    with responsive(service):
        job_id = tenant.submit("i=10; while :; do head -c 1000000 /dev/zero > file$i; i=$((i+1)); sleep 0.01; done")
        status = tenant.wait(job_id)
    assert status["status"] == "FAILED"
    assert status["message"].startswith("out of disk: used ")
    assert status["message"].endswith(" of 20 MB [AT-453]")
    # As much as it may have is kept, and the rest is named.
    assert (tenant.folder(job_id) / "file10").exists()
    note = "was not copied to the bucket: the files of the job are larger than --job-disk allows."
    assert note in tenant.whole_log(job_id)


def test_a_job_that_runs_for_too_long_is_ended_with_a_reason(service: RunningService, tenant: Tenant) -> None:
    job_id = tenant.submit("trap '' TERM; echo up; while :; do sleep 1; done", completionTime="1s", retries=3)
    status = tenant.wait(job_id)
    assert (status["status"], status["message"]) == ("FAILED", "exceeded its completionTime [AT-456]")
    assert tenant.log(job_id).splitlines().count("up") == 1, "it does not run again, since it would take as long again"


@pytest.mark.parametrize("words", ["as long as it takes", "1:30:00", "10 parsecs"])
def test_a_time_that_cannot_be_read_is_a_day_and_not_for_ever(
    service: RunningService, tenant: Tenant, words: str
) -> None:
    job_id = tenant.submit("true", completionTime=words)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    note = f"The completionTime {words!r} cannot be parsed: the job may run for 1 day."
    assert note in tenant.whole_log(job_id)
    assert Spec.read(service.files.job_state(tenant.name, job_id)).limits.seconds == 24 * 60 * 60


def test_a_job_that_asks_for_more_than_there_is_gets_what_there_is(service: RunningService, tenant: Tenant) -> None:
    job_id = tenant.submit("true", resources={"cpus": 64, "memory": 32000})
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    note = "The job requested 64 CPUs and 32000 MB of memory, but the machine has less: it gets 2 CPUs and 4000 MB"
    assert note in tenant.whole_log(job_id)


def test_a_job_that_ignores_the_end_is_ended_by_force(service: RunningService, tenant: Tenant) -> None:
    job_id = tenant.submit("trap '' TERM INT HUP; echo up; while :; do :; done")
    wait_for(lambda: "up" in tenant.log(job_id), "the job to be up")
    with responsive(service):
        tenant.http.delete(f"jobs/{job_id}")
        assert tenant.wait(job_id)["status"] == "CANCELED"
    assert "up" in tenant.log(job_id), "what it had written can be read"


def test_nothing_of_a_job_reports_that_the_rest_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kill = os.killpg

    def kill_slowly(group: int, number: int) -> None:
        kill(group, number)
        time.sleep(0.1)  # the processes of other groups run meanwhile

    monkeypatch.setattr(os, "killpg", kill_slowly)
    many = "for i in 1 2 3 4 5 6 7 8; do (setsid --wait sleep 600; echo killed) & done; wait"
    with subprocess.Popen(["/bin/sh", "-c", many], start_new_session=True, stdout=subprocess.PIPE) as job:

        def processes() -> list[psutil.Process]:
            return [psutil.Process(job.pid), *psutil.Process(job.pid).children(recursive=True)]

        wait_for(lambda: sum(process.name() == "sleep" for process in processes()) == 8, "all of the job to run")
        limits = JobLimits(seconds=None, cpus=1, memory=100, disk=100, log=1)
        Limiter(limits, tmp_path).kill(processes)
        assert job.stdout is not None
        assert job.stdout.read() == b""


@pytest.mark.parametrize("target", ["{other}", "{state}", "/etc"])
def test_a_link_out_of_the_folder_shows_nothing(service: RunningService, tenant: Tenant, target: str) -> None:
    other = Tenant(service)
    (other.folder("x") / "secret").write_text("theirs")
    path = target.format(other=service.files.bucket(other.name), state=service.files.root)
    job_id = tenant.submit(f"ln -s '{path}' link; ln -s '{path}/jobs/job-x/secret' file; echo mine > own")
    tenant.wait(job_id)
    store = tenant.storage()
    assert [entry["path"].rpartition("/")[2] for entry in listing(store)] == ["own"]
    for path in ("link/jobs/job-x/secret", "file", "link/passwd", "link/service.db", "link"):
        assert content(store, f"jobs/job-{job_id}/{path}") is None
        # Nor does it after something was written to its target.
        with contextlib.suppress(BaseError):
            obstore.put(store, f"jobs/job-{job_id}/{path}/new", b"mine")
        assert content(store, f"jobs/job-{job_id}/{path}") is None
        with contextlib.suppress(BaseError, FileNotFoundError):
            obstore.delete(store, f"jobs/job-{job_id}/{path}")
    assert (other.folder("x") / "secret").read_text() == "theirs"
    assert {file.name for file in service.files.bucket(other.name).rglob("*")} == {"jobs", "job-x", "secret"}
    other.leave()


def listing(store: S3Store) -> list[Any]:
    return list(obstore.list(store).collect())


def content(store: S3Store, path: str) -> bytes | None:
    try:
        return bytes(obstore.get(store, path).bytes())
    except (BaseError, FileNotFoundError):
        return None


@pytest.mark.slow
def test_a_hundred_jobs_on_two_cpus_never_run_more_than_fit(service: RunningService, tenant: Tenant) -> None:
    # Each job records in its tenant's folder when it begins and ends; two cpus are two at a time.
    book = tenant.folder("book") / "book"
    command = f"echo + >> '{book}'; sleep 0.05; echo - >> '{book}'"
    jobs = [tenant.submit(command, resources={"cpus": 1 + number % 2}) for number in range(100)]
    assert {job["job_id"] for job in tenant.http.get("jobs").json()["jobs"]} == set(jobs)
    most = 0
    with responsive(service):
        while waiting := [job for job in tenant.http.get("jobs").json()["jobs"] if job["finishTime"] is None]:
            running = [job["job_id"] for job in waiting if job["status"] == "RUNNING"]
            most = max(most, sum(1 + jobs.index(job_id) % 2 for job_id in running))
            # Not a wait for anything: asked without a pause, the service takes the cpus that the jobs need.
            time.sleep(0.05)
    assert most <= 2
    statuses = [tenant.status(job_id) for job_id in jobs]
    assert {status["status"] for status in statuses} == {"SUCCEEDED"}
    starts = [status["startTime"] for status in statuses]
    assert starts[::2] == sorted(starts[::2]), "first come, first served"
    at_once, peak = 0, 0
    for sign in book.read_text().split():
        at_once += 1 if sign == "+" else -1
        peak = max(peak, at_once)
    assert at_once == 0
    assert peak <= 2


@pytest.mark.parametrize(
    ("command", "changes", "exceeded"),
    [
        (HOG, {"memory": 300}, "out of memory: used "),
        (HOG_IN_A_CHILD, {"memory": 300}, "out of memory: used "),
        (MANY.format(number=500), {}, "too many processes: "),
    ],
    ids=["memory", "memory of a child", "processes"],
)
def test_limits_hold_without_control_groups(
    tmp_path: Path, command: str, changes: dict[str, Any], exceeded: str
) -> None:
    assert without_groups(tmp_path, command, **changes)[0].startswith(exceeded)
    here = str(tmp_path)
    assert not [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == here]


def test_what_a_job_uses_is_seen_without_control_groups(tmp_path: Path) -> None:
    exceeded, samples = without_groups(tmp_path, f"({BUSY}) & wait")
    assert not exceeded
    seen = [Sample(*values) for values in json.loads(samples)]
    assert seen
    assert max(sample.memory for sample in seen) > 100
    assert 0 < max(sample.cpus for sample in seen) < 1.6


def without_groups(folder: Path, command: str, **changes: Any) -> list[str]:
    """Run a command; returns the limit that it exceeded, and the samples of what it used."""
    program = folder / "program.py"
    program.write_text(WITHOUT_GROUPS)
    facts = {"cpus": 1, "memory": 4000, "disk": 1000, "log": 10**6, "seconds": None, **changes}
    words = [sys.executable, str(program), command, json.dumps(facts), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=PATIENCE)
    return done.stdout.splitlines()


WITHOUT_GROUPS = """
import json, os, sys
from pathlib import Path
from airflow_training.service.runners.process import memory_and_process_limits as limits
from airflow_training.service.runners.supervisor.process_tree import ProcessTree, Program, adopt_orphans
from airflow_training.service.runners.supervisor.usage import Sampler

limits.Cgroup.create = lambda *_, **__: None
limits.PROCESSES = 300
command, facts, folder = sys.argv[1:]
adopt_orphans()
limiter = limits.ProcessLimiter(limits.JobLimits(**json.loads(facts)), Path(folder), "none")
samples = []

class Nothing:
    def write(self, output, /): pass
    def show_line(self): pass

tree = ProcessTree(Nothing(), 5, Sampler(samples.append, ()))
ended = tree.run(Program(["/bin/sh", "-c", command], Path(folder), os.environ), limiter)
print(ended.exceeded)
print(json.dumps(samples))
"""


def test_a_control_group_is_gone_after_its_job(tenant: Tenant) -> None:
    job_id = tenant.submit("while ! test -e go; do sleep 0.05; done")
    tenant.wait(job_id, "RUNNING")
    name = unique_name(tenant.service.files.job_state(tenant.name, job_id))
    there = Cgroup.find(name)
    (tenant.work(job_id) / "go").touch()
    tenant.wait(job_id)
    if there:
        wait_for(lambda: Cgroup.find(name) is None, "the end of the group")
