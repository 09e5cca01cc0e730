"""Jobs in containers: their image, their isolation, and an unreachable engine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_training.service.runners.container.folders import work_folder
from airflow_training.service.runners.run_folder import unique_name
from airflow_training.service.runners.supervisor import copy_in_and_back
from tests.engines.podman import IMAGE, Podman
from tests.patience import wait_for
from tests.service.support import RunningService, Tenant, keys


@pytest.fixture(scope="module")
def service(podman: Podman, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """A service that runs jobs in containers; its engine's configuration has a secret."""
    folder = tmp_path_factory.mktemp("container")
    (folder / "config.json").write_text(json.dumps({"proxies": {"default": {"httpProxy": "http://me:s3cret@proxy"}}}))
    options = ("--runner", "container", "--job-disk", "20")
    service = RunningService(folder, {**podman.environment, "DOCKER_CONFIG": str(folder)}, options)
    with service.running():
        yield service
    podman.remove_containers(service.data)


UNTIL_RELEASED = "while ! test -e go; do sleep 0.05; done"


def submit(tenant: Tenant, command: str, image: str = IMAGE, **execution: Any) -> str:
    return tenant.submit(command, image=image, **execution)


def test_a_job_without_an_image_is_refused(tenant: Tenant) -> None:
    job = {"job": {"name": "job", "execution": {"command": "true", "completionTime": "1h"}}}
    reply = tenant.http.post("jobs/no-image", json=job)
    assert reply.status_code == 422
    assert reply.json()["error"]["message"].endswith("set image, such as python:3.11. [AT-627]")


def test_an_invalid_image_name_is_refused(tenant: Tenant) -> None:
    execution = {"command": "true", "completionTime": "1h", "image": "../containers/other"}
    reply = tenant.http.post("jobs/bad-image", json={"job": {"name": "job", "execution": execution}})
    assert reply.status_code == 422


def test_a_job_sees_no_proxy_of_the_engine(tenant: Tenant) -> None:
    job_id = submit(tenant, "env")
    tenant.wait(job_id)
    assert "s3cret" not in tenant.log(job_id)


@pytest.mark.parametrize(
    ("command", "reported"),
    [
        ("truncate -s 10T holes; ln holes more", ["'holes'", "'more'"]),
        ('python3 -c \'import os\nfor _ in range(1500): os.mkdir("d" * 9); os.chdir("d" * 9)\'', ["ddddddddd"]),
        ("echo 1 > $(printf 'new\\nline\\377')", []),
        ("truncate -s 1T ~/.memory; chmod 400 ~/.memory", []),
    ],
    ids=["holes", "deep", "name", "note"],
)
def test_files_that_cannot_be_copied_back_are_reported(tenant: Tenant, command: str, reported: list[str]) -> None:
    job_id = submit(tenant, f"{command}; echo 1 > file; exit 3")
    status = tenant.wait(job_id)
    assert status["status"] == "FAILED"
    assert "of 300 MB" not in status["message"]
    assert (tenant.folder(job_id) / "file").exists()
    for words in reported:
        assert words in tenant.whole_log(job_id)


def test_copying_back_can_be_repeated(tmp_path: Path) -> None:
    work, bucket = tmp_path / "work", tmp_path / "bucket"
    bucket.mkdir()
    work.mkdir()
    facts = {"files": {"folder": str(bucket)}, "work": str(work), "state": str(tmp_path), "owner": 0, "most": 1}

    def copy(step: str) -> None:
        words = [sys.executable, "-m", copy_in_and_back.__name__, step, json.dumps(facts)]
        subprocess.run(words, check=True, capture_output=True)

    copy("fetch")
    (work / "model").write_text("m")
    copy("send")
    copy("send")
    shutil.rmtree(work)
    copy("send")
    assert [file.name for file in bucket.iterdir()] == ["model"]


def test_an_image_that_cannot_be_pulled_fails_the_job_with_the_reason(tenant: Tenant) -> None:
    job_id = submit(tenant, "true", image="localhost:1/not/there:2", pythonMajorVersion=2)
    status = tenant.wait(job_id)
    assert status["status"] == "FAILED"
    assert status["message"].startswith("the image localhost:1/not/there:2 cannot be pulled: ")
    assert "Pulling the image localhost:1/not/there:2" in tenant.log(job_id)


def test_an_image_that_the_engine_lacks_is_pulled(tenant: Tenant, podman: Podman) -> None:
    with podman.image_elsewhere("training/other:3") as image:
        job_id = submit(tenant, "echo from the image", image=image)
        assert tenant.wait(job_id)["status"] == "SUCCEEDED", tenant.whole_log(job_id)
    pulling, *progress, last = tenant.log(job_id).splitlines()
    assert (pulling, last) == (f"Pulling the image {image}", "from the image")
    assert progress


def test_a_job_runs_as_nobody_and_sees_only_its_own_folder(service: RunningService, tenant: Tenant) -> None:
    command = f"id -u; pwd; ls /data /data/jobs; ls {service.data} 2>&1; grep -i nonewprivs /proc/self/status"
    job_id = submit(tenant, command)
    tenant.wait(job_id)
    folder = f"job-{job_id}"
    lines = tenant.log(job_id).splitlines()
    assert lines[:2] == ["65534", f"/data/jobs/{folder}"]
    assert lines[2:6] == ["/data:", "jobs", "", "/data/jobs:"]
    assert lines[6] == folder
    assert "No such file" in lines[7]
    assert lines[8].split() == ["NoNewPrivs:", "1"]


def test_a_job_installs_its_requirements(tenant: Tenant) -> None:
    job_id = "with-requirements"
    for name, content in {
        "requirements.txt": b"./package\n",
        "package/setup.py": b"from setuptools import setup\nsetup(name='package', py_modules=['packaged'])\n",
        "package/packaged.py": b"print('installed')\n",
    }.items():
        tenant.storage().put(f"jobs/job-{job_id}/{name}", content)
    command = "PIP_NO_INDEX=1 PIP_NO_BUILD_ISOLATION=0 pip3 install -r requirements.txt && python3 -c 'import packaged'"
    submit(tenant, command, job_id=job_id)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED", tenant.log(job_id)
    assert tenant.log(job_id).splitlines()[-1] == "installed"


def test_the_image_decides_which_python_a_job_has(tenant: Tenant) -> None:
    job_id = submit(tenant, "true", pythonVersion="3.3")
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert "with the Python of their image: pythonVersion 3.3 is ignored." in tenant.whole_log(job_id)


def test_links_out_of_the_job_are_not_followed(service: RunningService, tenant: Tenant) -> None:
    outside = service.data / "outside"
    outside.mkdir()
    (outside / "secret").write_text("theirs")
    job_id = submit(tenant, f"ln -s {outside} link; ln -s {outside}/secret file; mkfifo pipe; echo mine > own")
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    store, folder = tenant.storage(), f"jobs/job-{job_id}"
    assert keys(store, folder) == [f"{folder}/own"]
    store.put(f"{folder}/link/new", b"mine")
    assert sorted(path.name for path in outside.iterdir()) == ["secret"]


def test_a_job_that_fills_its_disk_is_ended(tenant: Tenant) -> None:
    job_id = submit(tenant, "while :; do head -c 1000000 /dev/zero >> /tmp/file; sleep 0.01; done")
    status = tenant.wait(job_id)
    assert status["status"] == "FAILED"
    assert status["message"].startswith("out of disk: used ")


def test_nothing_is_left_of_a_job_that_has_ended(service: RunningService, tenant: Tenant, podman: Podman) -> None:
    done, killed = submit(tenant, "true"), submit(tenant, "trap '' TERM; echo up; while :; do sleep 0.1; done")
    wait_for(lambda: "up" in tenant.log(killed), "the job to run")
    state = service.files.job_state(tenant.name, killed)
    assert tenant.status(killed)["containerID"].startswith(f"container-{unique_name(state)}")
    assert unique_name(state) in podman.containers(service.data)
    tenant.http.delete(f"jobs/{killed}")
    for job_id in (done, killed):
        tenant.wait(job_id)
    assert podman.containers(service.data) == set()
    assert not (state / "container").exists()


def test_a_job_waits_for_an_unreachable_engine(tenant: Tenant, podman: Podman) -> None:
    podman.stop()
    try:
        waiting, canceled = submit(tenant, "echo there"), submit(tenant, "true")
        wait_for(lambda: "waiting for the container engine" in tenant.status(waiting)["message"], "the reason")
        assert tenant.status(waiting)["status"] == "PENDING"
        tenant.http.delete(f"jobs/{canceled}")
        assert tenant.wait(canceled)["status"] == "CANCELED"
    finally:
        podman.start()
    assert tenant.wait(waiting)["status"] == "SUCCEEDED"
    assert tenant.log(waiting) == "there\n"


def test_a_job_outlives_a_restart_of_the_engine(tenant: Tenant, podman: Podman) -> None:
    job_id = submit(tenant, f"echo before; {UNTIL_RELEASED}; echo after; echo run >> runs; exit 4")
    wait_for(lambda: "before" in tenant.log(job_id), "the job to run")
    podman.stop()
    podman.start()
    wait_for(lambda: "The container engine was unreachable" in tenant.whole_log(job_id), "the job to be followed again")
    (work_folder(tenant.service.files.job_state(tenant.name, job_id)) / "go").touch()
    assert tenant.wait(job_id)["message"] == "the command exited with status 4 [AT-451]"
    assert tenant.log(job_id).splitlines()[-1] == "after"
    assert (tenant.folder(job_id) / "runs").read_text() == "run\n"


def test_a_job_can_be_canceled_after_its_engine_hung(tenant: Tenant, podman: Podman) -> None:
    job_id = submit(tenant, "echo up; sleep 600")
    wait_for(lambda: "up" in tenant.log(job_id), "the job to run")
    podman.hang()
    tenant.http.delete(f"jobs/{job_id}")
    podman.go_on()
    assert tenant.wait(job_id)["status"] == "CANCELED"
