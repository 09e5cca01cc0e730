"""What `GET /api/v2/jobs/{id}/usage` answers, and to whom."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_training.service.runners.supervisor.usage import MOST, USAGE_FILE, Sample, UsageFile
from tests.patience import wait_for
from tests.service.support import Tenant, on_both

WHOLE_MACHINE = {"cpus": 100_000}
PEAK = Sample(1_795_595_000.0, 3.0, 900.0)


def file_of(tenant: Tenant, job_id: str) -> Path:
    return tenant.service.files.job_state(tenant.name, job_id) / USAGE_FILE


def usage(tenant: Tenant, job_id: str, **options: int) -> Any:
    return tenant.http.get(f"jobs/{job_id}/usage", params=options).raise_for_status().json()


@pytest.fixture
def long_job(tenant: Tenant) -> str:
    """A job that has ended, with as many samples as are kept and a peak in between."""
    job_id = tenant.submit("true")
    tenant.wait(job_id)
    file = UsageFile(file_of(tenant, job_id).parent)
    samples = [Sample(PEAK.time + 2.0 * (number - 1234), 1.0, 100.0) for number in range(MOST)]
    samples[1234] = PEAK
    for sample in samples:
        file.add(sample)
    return job_id


@on_both
def test_a_job_that_waits_has_no_samples_and_says_what_it_asks_for_and_would_get(tenant: Tenant) -> None:
    first = tenant.submit("sleep 600", resources=WHOLE_MACHINE)
    waits = tenant.submit("true", resources={**WHOLE_MACHINE, "memory": 10**9})
    told = usage(tenant, waits)
    assert told["samples"] == []
    assert told["requested"] == {"cpus": 100_000, "memory": 10**9, "gpus": 0}
    assert 0 < told["allocated"]["cpus"] < 10_000
    assert 0 < told["allocated"]["memory"] < 10**9
    tenant.http.delete(f"jobs/{waits}")
    tenant.http.delete(f"jobs/{first}")


def test_a_long_job_is_downsampled_to_the_requested_points(tenant: Tenant, long_job: str) -> None:
    everything = usage(tenant, long_job, points=10_000)["samples"]
    assert len(everything) == MOST
    assert len(usage(tenant, long_job)["samples"]) <= 500
    for points in (2, 3, 10, 1000):
        sampled = usage(tenant, long_job, points=points)["samples"]
        assert 2 <= len(sampled) <= points
        assert (sampled[0], sampled[-1]) == (everything[0], everything[-1])
        assert (PEAK.memory in [sample["memory"] for sample in sampled]) == (points > 3)


@pytest.mark.parametrize("points", ["1", "0", "-5", "10001", "many", "", "1e3", "nan"])
def test_points_that_cannot_be_are_refused(tenant: Tenant, points: str) -> None:
    job_id = tenant.submit("true")
    reply = tenant.http.get(f"jobs/{job_id}/usage", params={"points": points})
    assert reply.status_code == 422
    assert "points" in reply.json()["error"]["message"]


def test_nobody_sees_what_the_job_of_another_tenant_uses(new_tenant: Callable[[], Tenant], long_job: str) -> None:
    theirs = new_tenant().http.get(f"jobs/{long_job}/usage")
    unknown = new_tenant().http.get("jobs/nothing/usage")
    assert theirs.status_code == unknown.status_code == 404
    assert "[AT-611]" in theirs.json()["error"]["message"]
    assert theirs.json()["error"]["message"].replace(long_job, "nothing") == unknown.json()["error"]["message"]


def test_usage_needs_a_token_that_may_read(tenant: Tenant, long_job: str) -> None:
    assert tenant.http.get(f"jobs/{long_job}/usage", headers={"Authorization": ""}).status_code == 401


@pytest.mark.parametrize("broken", [b"", b"[1.0, 2", b"\x00" * 4096, b"[[[", b"[NaN, NaN, NaN, null, null]\n"])
def test_a_file_that_is_broken_is_answered_without_what_is_broken(tenant: Tenant, broken: bytes) -> None:
    job_id = tenant.submit("true")
    tenant.wait(job_id)
    file_of(tenant, job_id).write_bytes(broken)
    assert usage(tenant, job_id)["samples"] == []


def test_what_was_allocated_stays_when_the_machine_is_another_one(tenant: Tenant) -> None:
    job_id = tenant.submit("true", resources={"cpus": 1, "memory": 256})
    tenant.wait(job_id)
    assert usage(tenant, job_id)["allocated"] == {"cpus": 1, "memory": 256, "gpus": 0}
    started = file_of(tenant, job_id).with_name("spec.json")
    started.write_text(started.read_text().replace('"memory":256', '"memory":128'))
    assert usage(tenant, job_id)["allocated"]["memory"] == 128


@pytest.mark.parametrize("instead", ["mkdir", "mkfifo", "ln -s /dev/zero"])
def test_a_job_that_breaks_its_own_samples_runs_on(tenant: Tenant, instead: str) -> None:
    job_id = tenant.submit(f"""
        rm -f ../usage.ndjson; {instead} ../usage.ndjson; echo broken
        while ! test -e go; do sleep 0.05; done
    """)
    wait_for(lambda: "broken" in tenant.log(job_id), "the broken file")
    assert usage(tenant, job_id)["samples"] == []
    (tenant.work(job_id) / "go").touch()
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert usage(tenant, job_id)["samples"] == []
