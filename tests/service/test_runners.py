"""What a job can rely on, whatever it runs on: the same for each runner, on its real engine."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from airflow_training.api.log import NDJSON
from tests.engines.podman import IMAGE
from tests.patience import wait_for
from tests.service.event_files import NAME, graph, old_scalar, saved_model
from tests.service.running_on import RAY, running_on
from tests.service.support import RunningService, Tenant, keys
from tests.wheels import wheel

ENDS_WITH_ITS_SUPERVISOR = ("process", "container")
RUNNERS = (*ENDS_WITH_ITS_SUPERVISOR, RAY)

TRAIN = """
python3 - --epochs=3 "two words" 'it'"'"'s' "$SETTING" <<'END'
import json, os, pathlib, sys
print("job", os.environ["TRAINING_JOB_ID"])
print("arguments", json.dumps(sys.argv[1:]))
print("data", pathlib.Path("data.csv").read_text())
model = pathlib.Path("model/1")
model.mkdir(parents=True)
(model / "saved_model.pb").write_bytes(bytes(range(256)))
(model / "variables with a space").mkdir()
(model / "variables with a space" / "ü%23.index").write_text("w")
END
"""
ENDS_ON_SIGTERM = """
trap 'echo SIGTERM; echo ended > ended; exit 0' TERM
echo up
while :; do sleep 0.05; done
"""
LINES = """python3 -c '
import time
for number in range(1000):
    print("line", number, flush=True)
    time.sleep(0.002)
'"""
# A shell would write "Terminated" into the line.
BAR = r"""exec python3 -c '
import signal, sys, time
def end(*_):
    print("\rall of many")
    sys.exit()
signal.signal(signal.SIGTERM, end)
step = 0
while True:
    step += 1
    print("\r%d of many" % step, end="", flush=True)
    time.sleep(0.2)
'"""
HOG = "echo begun > begun; python3 -c 'x = bytearray(400 * 1024 * 1024)'; echo survived $?"
FAILS_ONCE = "test -e before && echo again && exit 0; touch before; echo first; exit 3"


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


def submit(tenant: Tenant, command: str, **execution: Any) -> str:
    return tenant.submit(command, image=IMAGE, **execution)


def test_a_job_gets_its_files_and_arguments_and_leaves_its_model_in_the_bucket(tenant: Tenant) -> None:
    job_id = "with-files"
    store = tenant.storage()
    store.put(f"jobs/job-{job_id}/data.csv", b"1,2,3")
    submit(tenant, TRAIN, job_id=job_id, env=[{"name": "SETTING", "value": 'a $HOME `b` "c" ü'}])

    status = tenant.wait(job_id)

    assert (status["status"], status["message"]) == ("SUCCEEDED", ""), tenant.whole_log(job_id)
    job, arguments, data = tenant.log(job_id).splitlines()[-3:]
    assert job == f"job {job_id}", "whoever submitted it"
    assert json.loads(arguments.removeprefix("arguments ")) == [
        "--epochs=3",
        "two words",
        "it's",
        'a $HOME `b` "c" ü',
    ]
    assert data == "data 1,2,3"
    folder = f"jobs/job-{job_id}"
    assert bytes(store.get(f"{folder}/model/1/saved_model.pb").bytes()) == bytes(range(256))
    assert set(keys(store, folder)) == {
        f"{folder}/data.csv",
        f"{folder}/model/1/saved_model.pb",
        f"{folder}/model/1/variables with a space/ü%23.index",
    }


def test_a_job_runs_again_with_the_files_that_it_began_with(tenant: Tenant) -> None:
    store, job_id, new_id = tenant.storage(), "runs-again", "again"
    store.put(f"jobs/job-{job_id}/data.csv", b"1,2,3\n")
    submit(tenant, "cat data.csv; ls; echo 1 > model", job_id=job_id)
    tenant.wait(job_id)
    request = {"job_id": new_id}

    wait_for(lambda: tenant.http.post(f"jobs/{job_id}/rerun", json=request).json()["submissionTime"], "the copy")

    assert tenant.wait(new_id)["status"] == "SUCCEEDED", tenant.whole_log(new_id)
    assert tenant.log(new_id) == tenant.log(job_id) == "1,2,3\ndata.csv\n"


def test_a_log_shows_no_secret_that_its_client_names_and_all_else(tenant: Tenant) -> None:
    secret, key = "it's a s3cr3t", "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----"
    script = """
printf '%s at %s\\n' "$1" "$TRACKER"; printf '%s\\n' "$KEY"; printf "it's a "; sleep 0.5; printf 's3\\143r3t\\n'; exit 3
"""
    command = f"sh -c {shlex.quote(script)} {shlex.join(['name', f'--tracker={secret}', '--epochs=5'])}"
    env = [{"name": "TRACKER", "value": f"https://user:{secret}@host"}, {"name": "KEY", "value": key}]

    job_id = tenant.submit(command, image=IMAGE, env=env, masks=[secret, key])

    tenant.wait(job_id)
    assert tenant.log(job_id).splitlines() == ["--tracker=*** at https://user:***@host", "***", "***"]
    running = tenant.whole_log(job_id).split("[service] Running: ")[1]
    assert "--tracker=***" in running
    assert "--epochs=5" in running
    records = tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).text
    for shown in (tenant.whole_log(job_id), records, str(tenant.status(job_id))):
        assert "s3cr3t" not in shown
        assert "MIIE" not in shown


def test_a_job_that_fails_says_how_and_leaves_what_it_wrote(tenant: Tenant) -> None:
    job_id = submit(tenant, "echo 1 > checkpoint; echo last words >&2; exit 3")
    status = tenant.wait(job_id)
    assert (status["status"], status["message"]) == ("FAILED", "the command exited with status 3 [AT-451]")
    assert tenant.log(job_id) == "last words\n"
    assert (tenant.folder(job_id) / "checkpoint").read_text() == "1\n"


def test_a_canceled_job_gets_sigterm_and_leaves_what_it_wrote(tenant: Tenant) -> None:
    job_id = submit(tenant, ENDS_ON_SIGTERM)
    wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
    tenant.http.delete(f"jobs/{job_id}")
    assert tenant.wait(job_id)["status"] == "CANCELED"
    lines = tenant.log(job_id).splitlines()
    assert lines[0] == "up"
    assert "SIGTERM" in lines
    assert (tenant.folder(job_id) / "ended").read_text() == "ended\n"


def test_a_canceled_job_that_does_not_listen_is_ended_by_force(tenant: Tenant) -> None:
    job_id = submit(tenant, "trap '' TERM; echo up; echo 1 > file; while :; do setsid --wait sleep 0.01; done")
    wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
    tenant.http.delete(f"jobs/{job_id}")
    assert tenant.wait(job_id)["status"] == "CANCELED"
    assert tenant.log(job_id) == "up\n"
    assert (tenant.folder(job_id) / "file").exists()


def test_a_job_that_runs_for_too_long_is_ended_with_a_reason(tenant: Tenant) -> None:
    job_id = submit(tenant, "echo up; while :; do sleep 0.05; done", completionTime="5s")
    status = tenant.wait(job_id)
    assert (status["status"], status["message"]) == ("FAILED", "exceeded its completionTime [AT-456]")
    assert tenant.log(job_id).splitlines()[0] == "up"


def test_a_job_that_needs_too_much_memory_is_ended_with_a_reason(tenant: Tenant) -> None:
    job_id = submit(tenant, HOG, resources={"memory": 300})
    status = tenant.wait(job_id)
    assert (status["status"], status["message"]) == ("FAILED", "out of memory: used 300 of 300 MB [AT-452]")
    assert (tenant.folder(job_id) / "begun").exists()


def test_a_service_that_is_killed_harms_no_job(service: RunningService, tenant: Tenant) -> None:
    job_id = submit(tenant, "echo first half; sleep 3; echo second half; echo run >> runs")
    wait_for(lambda: "first half" in tenant.log(job_id), "the job to run")
    service.process.kill()
    service.start()
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert tenant.log(job_id) == "first half\nsecond half\n"
    assert (tenant.folder(job_id) / "runs").read_text() == "run\n"


@pytest.mark.parametrize("runner", ENDS_WITH_ITS_SUPERVISOR, indirect=True, scope="module")
@pytest.mark.parametrize("retries", [0, 1])
def test_a_job_whose_supervisor_is_killed_is_reported_or_run_again(
    service: RunningService, tenant: Tenant, retries: int
) -> None:
    job_id = submit(
        tenant, "test -e before && echo again && exit 0; touch before; echo half; sleep 600", retries=retries
    )
    wait_for(lambda: "half" in tenant.log(job_id), "the job to run")
    for process in service.supervisors():
        process.kill()
    status = tenant.wait(job_id)
    if retries:
        assert status["status"] == "SUCCEEDED"
        assert tenant.log(job_id) == "half\nagain\n"
    else:
        assert (status["status"], status["message"]) == (
            "FAILED",
            "the job's supervisor was killed while the job ran [AT-464]",
        )
    assert (tenant.folder(job_id) / "before").exists()


@pytest.mark.parametrize("runner", ENDS_WITH_ITS_SUPERVISOR, indirect=True, scope="module")
@pytest.mark.parametrize("retries", [1, 2])
def test_a_supervisor_that_is_killed_in_a_later_attempt_loses_no_job(
    service: RunningService, tenant: Tenant, retries: int
) -> None:
    attempts = "echo run >> runs; test $(wc -l < runs) = 1 && exit 3; test $(wc -l < runs) = 3 && exit 0"
    job_id = submit(tenant, f"{attempts}; echo second; sleep 600", retries=retries)
    wait_for(lambda: "second" in tenant.log(job_id), "the second attempt")
    for process in service.supervisors():
        process.kill()
    assert tenant.wait(job_id)["status"] == ("SUCCEEDED" if retries == 2 else "FAILED")


def test_a_job_that_failed_is_run_again_as_often_as_it_may(tenant: Tenant) -> None:
    job_id = submit(tenant, FAILS_ONCE, retries=2)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert tenant.log(job_id) == "first\nagain\n"


def test_a_thousand_lines_come_in_order_with_their_times(tenant: Tenant) -> None:
    job_id = submit(tenant, LINES)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    records = tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).text.splitlines()
    lines = [line for line in map(json.loads, records) if line["line"].startswith("line ")]
    assert [line["line"] for line in lines] == [f"line {number}" for number in range(1000)]
    times = [datetime.fromisoformat(line["time"].replace("Z", "+00:00")) for line in lines]
    assert all(before < after for before, after in pairwise(times))
    assert times[-1] - times[0] > timedelta(seconds=1), "the times are those of the writing"


def test_a_progress_bar_is_seen_while_its_line_has_not_ended(tenant: Tenant) -> None:
    job_id = submit(tenant, BAR)

    def records() -> list[dict[str, Any]]:
        lines = tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).text.splitlines()
        return [json.loads(line) for line in lines]

    (state, *_) = wait_for(lambda: [r for r in records() if r.get("unended")], "the state of the line")
    assert state["line"].endswith(" of many")
    tenant.http.delete(f"jobs/{job_id}")
    tenant.wait(job_id, "CANCELED")
    ended = [record["line"] for record in records() if not record.get("unended")]
    assert [line for line in ended if "of many" in line and not line.startswith("[service]")] == ["all of many"]


def test_a_job_has_curves_and_a_model(tenant: Tenant) -> None:
    report = """printf '{"metrics": {"loss": %s}, "epoch": %s}\\n' $1 $1"""
    scalar = base64.b64encode(old_scalar("loss", 7, 0.5)).decode()
    model = base64.b64encode(saved_model(graph())).decode()
    job_id = submit(
        tenant,
        f"""
        report() {{ {report}; }}
        report 1; mkdir -p logs model/1; echo {scalar} | base64 -d > logs/{NAME}
        report 2; echo {model} | base64 -d > model/1/saved_model.pb
        """,
    )

    def curves() -> dict[str, Any]:
        return {name: [point[1:] for point in curve["points"]] for name, curve in tenant.curves(job_id).items()}

    assert tenant.wait(job_id)["status"] == "SUCCEEDED", tenant.whole_log(job_id)
    # A reply does not wait for what takes long to read.
    wait_for(
        lambda: curves() == {"loss": [[1, 1], [2, 2]], "logs/loss": [[7, 0.5]]}, "the curves of log and event file"
    )
    found = tenant.model(job_id)
    assert (found["path"], found["reason"]) == ("model/1", "")
    assert [signature["name"] for signature in found["signatures"]] == ["serving_default"]


def test_a_job_leaves_a_list_of_its_packages_that_makes_the_same_environment_again(
    tenant: Tenant, tmp_path: Path
) -> None:
    package = wheel(tmp_path)
    store, requirements = tenant.storage(), f"./wheels/{package.name}\n"
    lists = []
    for job_id in ("with-packages", "again"):
        folder = f"jobs/job-{job_id}"
        store.put(f"{folder}/wheels/{package.name}", package.read_bytes())
        store.put(f"{folder}/requirements.txt", requirements.encode())
        submit(tenant, "pip3 install --no-index -r requirements.txt && python3 -c 'import handed_over'", job_id=job_id)
        assert tenant.wait(job_id)["status"] == "SUCCEEDED", tenant.whole_log(job_id)
        assert tenant.log(job_id).splitlines()[-1] == "handed over"
        requirements = bytes(store.get(f"{folder}/requirements.installed.txt").bytes()).decode()
        lists.append(requirements)
    first, *packages = lists[0].splitlines()
    assert f"./wheels/{package.name}" in packages
    assert tenant.http.get("jobs/with-packages/environment").json() == {
        "python": first.removeprefix("# Python "),
        "packages": packages,
    }
    assert lists[0] == lists[1]


def test_a_job_finds_none_of_the_services_secrets(service: RunningService, tenant: Tenant) -> None:
    job_id = submit(tenant, "env; id -u")
    tenant.wait(job_id)
    assert "DOCKER_HOST" not in tenant.log(job_id)
    assert str(service.data / "service.db") not in tenant.log(job_id)
