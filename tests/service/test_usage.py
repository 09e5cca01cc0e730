"""What a job used is told, whatever it runs on, and goes on being told after a restart of the service."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.engines.podman import IMAGE
from tests.patience import wait_for
from tests.service.running_on import RAY, running_on
from tests.service.support import RunningService, Tenant

RUNNERS = ("process", "container", RAY)

BUSY = """python3 -c '
held = b"x" * (200 * 1024 * 1024)
print("holds", len(held), flush=True)
while True: pass
'"""


@pytest.fixture(scope="module", params=RUNNERS)
def runner(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def service(
    runner: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    """A service with each runner."""
    with running_on(runner, request, tmp_path_factory.mktemp(runner)) as service:
        yield service


def usage(tenant: Tenant, job_id: str, **options: int) -> Any:
    return tenant.http.get(f"jobs/{job_id}/usage", params=options).raise_for_status().json()


def samples(tenant: Tenant, job_id: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = usage(tenant, job_id)["samples"]
    return found


def is_busy(sample: dict[str, Any]) -> bool:
    # How much of the machine it gets is for other processes to say as well.
    return bool(sample["cpus"] > 0.1 and sample["memory"] > 190)


def test_a_job_that_is_busy_and_holds_memory_is_seen_to_also_by_a_service_that_was_killed(
    service: RunningService, tenant: Tenant
) -> None:
    job_id = tenant.submit(BUSY, image=IMAGE, resources={"cpus": 1, "memory": 900})

    wait_for(lambda: any(map(is_busy, samples(tenant, job_id))), "a sample of the busy job")
    before = samples(tenant, job_id)
    service.process.kill()
    service.start()
    wait_for(lambda: len(samples(tenant, job_id)) > len(before), "a sample after the restart")
    tenant.http.delete(f"jobs/{job_id}")
    tenant.wait(job_id)

    told = usage(tenant, job_id)
    assert told["samples"][: len(before)] == before
    times = [sample["time"] for sample in told["samples"]]
    assert times == sorted(set(times))
    assert all(sample["cpus"] < 1.6 and sample["memory"] < 900 for sample in told["samples"]), told
    assert all(sample["gpus"] is None and sample["gpu_memory"] is None for sample in told["samples"])
    assert told["requested"] == told["allocated"] == {"cpus": 1, "memory": 900, "gpus": 0}


def test_a_file_that_a_job_has_written_is_not_taken_for_its_memory(tenant: Tenant) -> None:
    job_id = tenant.submit("head -c 300000000 /dev/zero > file; echo written; sleep 600", image=IMAGE)
    wait_for(lambda: "written" in tenant.log(job_id), "the file")
    before = len(samples(tenant, job_id))
    wait_for(lambda: len(samples(tenant, job_id)) > before + 1, "samples of what came afterwards")
    assert samples(tenant, job_id)[-1]["memory"] < 150


def test_attempts_of_a_job_are_seen_one_after_the_other(tenant: Tenant) -> None:
    job_id = tenant.submit(
        "test -e begun || { echo 1 > begun; sleep 5; exit 3; }; echo again; sleep 600", image=IMAGE, retries=1
    )
    wait_for(lambda: "again" in tenant.log(job_id), "the second attempt")
    first = samples(tenant, job_id)
    assert first
    wait_for(lambda: len(samples(tenant, job_id)) > len(first), "a sample of the second attempt")
    assert samples(tenant, job_id)[: len(first)] == first
