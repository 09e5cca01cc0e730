"""The Python of a job that is a process: the one it requests, or a refusal that lists those that there are."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from airflow_training.service.runners.supervisor.environment import OWN_PYTHON
from tests.service.support import RunningService, Tenant
from tests.wheels import wheel


@pytest.fixture
def other() -> tuple[str, Path]:
    """Another Python of this machine: its version, and the folder of its program."""
    of_pyenv = sorted(Path.home().glob(".pyenv/versions/*/bin"))
    for folder in (*of_pyenv, *map(Path, os.environ["PATH"].split(os.pathsep))):
        for version in ("3.12", "3.13", "3.11", "3.10"):
            program = folder / f"python{version}"
            if version != OWN_PYTHON and program.is_file() and _runs(program):
                return version, folder
    pytest.skip("this machine has one Python only")


def _runs(program: Path) -> bool:
    """Whether it is a Python; pyenv has programs on PATH that only report that they are not active."""
    return not subprocess.run([program, "-c", ""], check=False, capture_output=True).returncode


def test_a_job_has_the_python_that_it_requests(tmp_path: Path, other: tuple[str, Path]) -> None:
    version, programs = other
    service = RunningService(tmp_path, {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"})
    with service.running():
        tenant = Tenant(service)
        package = wheel(tenant.folder("other"))
        (tenant.folder("other") / "requirements.txt").write_text(f"./{package.name}")
        tenant.submit(
            f"python3 -V; python{version} -V; pip3 -V; python3 -c 'import handed_over'", "other", pythonVersion=version
        )
        assert tenant.wait("other")["status"] == "SUCCEEDED", tenant.whole_log("other")
        # uv reports first what it has installed.
        python, same, pip, last = tenant.log("other").splitlines()[-4:]
        assert python.startswith(f"Python {version}.")
        assert same == python
        assert pip.endswith(f"(python {version})")
        assert last == "handed over"
        installed = (tenant.folder("other") / "requirements.installed.txt").read_text()
        assert installed.splitlines()[0] == f"# {python}"
        assert f"./{package.name}" in installed.splitlines()
        tenant.leave()


def test_the_services_own_python_can_be_requested(tenant: Tenant) -> None:
    job_id = tenant.submit("python3 -V", pythonVersion=OWN_PYTHON)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED"
    assert tenant.log(job_id).startswith(f"Python {OWN_PYTHON}.")


def test_a_python_that_the_machine_lacks_is_refused_with_a_list_of_those_it_has(tenant: Tenant) -> None:
    execution = {"command": "true", "completionTime": "1h", "pythonVersion": "3.3"}
    reply = tenant.http.post("jobs/old", json={"job": {"name": "job", "execution": execution}})
    assert reply.status_code == 422
    listed = re.search(r"of a machine with Python ([0-9., ]+): request a version", reply.json()["error"]["message"])
    assert listed
    versions = listed[1].split(", ")
    assert OWN_PYTHON in versions
    assert versions == sorted(versions, key=lambda version: int(version.split(".")[1]))


def test_a_job_without_requirements_has_no_list_of_packages(tenant: Tenant) -> None:
    job_id = tenant.submit("true")
    tenant.wait(job_id)
    reply = tenant.http.get(f"jobs/{job_id}/environment")
    assert reply.status_code == 404
    assert reply.json()["error"]["message"].endswith("requirements.txt. [AT-616]")
    assert not (tenant.folder(job_id) / "requirements.installed.txt").exists()


@pytest.mark.parametrize(
    "damage",
    [
        'rm -rf "$VIRTUAL_ENV"',
        "cd \"$VIRTUAL_ENV\"/bin && rm python && printf '#!/bin/sh\\necho > {outside}' > python && chmod +x python",
        "mkdir {listed}",
        "ln -s {outside} {listed}",
    ],
)
def test_a_job_does_not_fail_for_its_list_of_packages(tenant: Tenant, tmp_path: Path, damage: str) -> None:
    job_id = f"damaged-by-{damage[:2]}"
    package = wheel(tenant.folder(job_id))
    (tenant.folder(job_id) / "requirements.txt").write_text(f"./{package.name}")
    outside = tmp_path / "outside"
    outside.write_text("theirs")
    tenant.submit(damage.format(listed="requirements.installed.txt", outside=outside), job_id)
    assert tenant.wait(job_id)["status"] == "SUCCEEDED", tenant.whole_log(job_id)
    assert outside.read_text() == "theirs"


def test_the_list_shows_no_secret_that_its_client_names(tenant: Tenant) -> None:
    job_id = "with-a-secret"
    package = wheel(tenant.folder(job_id), "s3cr3t")
    (tenant.folder(job_id) / "requirements.txt").write_text(f"./{package.name}")
    tenant.submit("true", job_id, masks=["s3cr3t"])
    tenant.wait(job_id)
    assert "./***-1.0-py3-none-any.whl" in tenant.http.get(f"jobs/{job_id}/environment").json()["packages"]
