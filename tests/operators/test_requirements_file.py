"""Requirements in a file: read as they are, or converted from a lock to what pip and uv install alike."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import sha256
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from airflow.sdk import ObjectStoragePath
from packaging.requirements import Requirement
from uv import find_uv_bin

from airflow_training.api.parameters import TrainingParameters
from airflow_training.api.status import JobState
from airflow_training.client.settings import ClientSettings
from airflow_training.operators import requirements_file
from airflow_training.operators.files import given, with_requirements
from airflow_training.operators.training import TrainingOperator
from tests.operators.support import train
from tests.wheels import wheel

COMMON: dict[str, Any] = {"job_name": "a", "script": "train.py", "image": "i", "completion_time": "5m"}
LOCK = 'lock-version = "1.0"\ncreated-by = "hand"\n'
HASH = "a" * 64
SIX = f"""
[[packages]]
name = "six"
version = "1.17.0"
sdist = {{ name = "six-1.17.0.tar.gz", path = "six-1.17.0.tar.gz", hashes = {{ sha256 = "{HASH}", md5 = "b" }} }}
wheels = [{{ path = "six-1.17.0-py2.py3-none-any.whl", hashes = {{ sha512 = "c" }} }}]
"""
LOCKED_SIX = f"six==1.17.0 \\\n    --hash=sha512:c \\\n    --hash=sha256:{HASH}\n"
PROJECT = """
[project]
name = "mine"
version = "1.0"
requires-python = ">=3.10"
dependencies = ["handed-over", "other ; sys_platform == 'win32'"]
[dependency-groups]
dev = ["for-tests"]
"""


def read(folder: Path, requirements: Any) -> tuple[Any, list[str]]:
    """The requirements of a task whose Dag is in a folder, and their errors."""
    values, errors = with_requirements({"requirements": requirements}, folder)
    return values["requirements"], errors


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program without the settings of this machine for its package index."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("UV_", "PIP_"))}
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a package index, which has the hashes of its packages."""
    root = tmp_path_factory.mktemp("index")
    for name in ("handed_over", "other", "for_tests"):
        folder = root / name.replace("_", "-")
        folder.mkdir()
        file = wheel(folder, name)
        digest = sha256(file.read_bytes()).hexdigest()
        (folder / "index.html").write_text(f'<a href="{file.name}#sha256={digest}">{file.name}</a>')
    handler = partial(SimpleHTTPRequestHandler, directory=str(root))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        serving.join()


@pytest.fixture
def project(tmp_path: Path, index: str) -> Path:
    """A project with a lock of uv."""
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    locked = run(tmp_path, find_uv_bin(), "lock", "--no-cache", "--default-index", index)
    assert not locked.returncode, locked.stderr
    return tmp_path


@pytest.mark.parametrize(
    "name",
    [
        lambda folder: "deps/gpu.txt",
        lambda folder: " deps/gpu.txt\n",
        lambda folder: str(folder / "deps" / "gpu.txt"),
        lambda folder: (folder / "deps" / "gpu.txt").as_uri(),
        lambda folder: folder / "deps" / "gpu.txt",
        lambda folder: ObjectStoragePath((folder / "deps" / "gpu.txt").as_uri()),
    ],
)
def test_a_requirements_file_is_read_as_it_is(tmp_path: Path, name: Callable[[Path], Any]) -> None:
    (tmp_path / "deps").mkdir()
    (tmp_path / "deps" / "gpu.txt").write_text("# for the GPU\nnumpy==2.3.0\n")

    assert read(tmp_path, name(tmp_path)) == ("# for the GPU\nnumpy==2.3.0\n", [])


@pytest.mark.parametrize("requirements", ["numpy", "numpy\nsix", ["requirements.txt"], None, 5])
def test_other_requirements_stay_as_they_are(tmp_path: Path, requirements: Any) -> None:
    assert read(tmp_path, requirements) == (requirements, [])


def test_the_name_of_a_file_is_a_template_and_may_come_from_the_config(tmp_path: Path) -> None:
    (tmp_path / "gpu.txt").write_text("numpy")
    task = TrainingOperator(task_id="train", requirements="{{ params.kind }}.txt", **COMMON)
    task.render_template_fields({"params": {"kind": "gpu"}})
    assert read(tmp_path, given(task)["requirements"]) == ("numpy", [])

    overridden = TrainingOperator(task_id="train", requirements="six", config={"requirements": "gpu.txt"}, **COMMON)
    assert read(tmp_path, given(overridden)["requirements"]) == ("numpy", [])


def test_a_dag_names_a_file_without_reading_it() -> None:
    TrainingOperator(task_id="train", requirements="nowhere/requirements.txt", **COMMON)


@pytest.mark.parametrize("lock", ["uv.lock", "pylock.toml", "pylock.gpu.toml"])
@pytest.mark.parametrize(
    "installer",
    [pytest.param("pip", marks=pytest.mark.skipif(not find_spec("pip"), reason="no pip is installed")), "uv"],
)
def test_a_lock_becomes_requirements_that_pip_and_uv_install(
    project: Path, index: str, lock: str, installer: str
) -> None:
    if lock != "uv.lock":
        exported = run(project, find_uv_bin(), "export", "--frozen", "--no-dev", "--format", "pylock.toml", "-o", lock)
        assert not exported.returncode, exported.stderr
    text, errors = read(project, lock)

    assert errors == []
    assert "for-tests" not in text
    (digest,) = re.findall(r"^handed-over==1\.0 \\\n    --hash=sha256:(\w+)$", text, re.MULTILINE)
    assert "other==1.0 ; sys_platform == 'win32'" in text.replace('"', "'")
    assert TrainingParameters.read({**COMMON, "requirements": text}).requirements == text
    program = {
        "pip": [sys.executable, "-m", "pip", "install", "--isolated", "--no-cache-dir"],
        "uv": [find_uv_bin(), "pip", "install", "--python", sys.executable, "--no-cache"],
    }
    install = [*program[installer], "--index-url", index, "-r", "requirements.txt", "--target"]
    (project / "requirements.txt").write_text(text)
    installed = run(project, *install, "target")
    assert not installed.returncode, installed.stderr
    assert (project / "target" / "handed_over.py").exists()
    assert not (project / "target" / "other.py").exists()
    (project / "requirements.txt").write_text(text.replace(digest, HASH))
    assert run(project, *install, "of another hash").returncode


def test_a_project_is_as_good_as_its_lock(project: Path) -> None:
    of_uv = read(project, "uv.lock")
    assert read(project, "pyproject.toml") == of_uv
    (project / "uv.lock").unlink()
    (project / "pylock.toml").write_text(LOCK + SIX)
    assert read(project, "pyproject.toml") == read(project, "pylock.toml")


def test_a_lock_may_be_in_a_store_unless_uv_has_to_read_it(training_connection: str) -> None:
    store = ObjectStoragePath(f"training://{training_connection}@data/locks/{uuid4()}")
    (store / "pylock.toml").write_text(LOCK + SIX)
    (store / "uv.lock").write_bytes(b"")

    assert read(Path(), str(store / "pylock.toml")) == (LOCKED_SIX, [])
    _, (error,) = read(Path(), str(store / "uv.lock"))
    assert error.endswith("uv reads it from a disk only; a pylock.toml may be in a store")


@pytest.mark.parametrize(
    ("packages", "text"),
    [
        (SIX, LOCKED_SIX),
        ("packages = []", ""),
        # The project itself.
        ("[[packages]]\nname = 'mine'\ndirectory = { path = '.', editable = true }", ""),
        ("[[packages]]\nname = 'mine'\ndirectory = { path = 'libs/mine' }", "./libs/mine\n"),
        (
            f"[[packages]]\nname = 'mine'\narchive = {{ path = 'm.zip', hashes = {{ sha256 = '{HASH}' }} }}",
            f"./m.zip \\\n    --hash=sha256:{HASH}\n",
        ),
        # pip would refuse the package from a repository beside hashes.
        (
            f"{SIX}[[packages]]\nname = 'mine'\nvcs = {{ type = 'git', url = 'file:///mine', commit-id = 'abc' }}",
            "six==1.17.0\nmine @ git+file:///mine@abc\n",
        ),
    ],
)
def test_each_package_of_a_lock_becomes_a_requirement(tmp_path: Path, packages: str, text: str) -> None:
    (tmp_path / "pylock.toml").write_text(LOCK + packages)

    assert read(tmp_path, "pylock.toml") == (text, [])


@pytest.mark.parametrize(
    ("marker", "in_the_job"),
    [
        ('"default" in dependency_groups', True),
        ('"test" in dependency_groups', False),
        ('"test" not in dependency_groups and python_version > "3"', True),
        ('"gpu" in extras or python_version < "3"', False),
    ],
)
def test_of_a_lock_for_many_uses_the_default_groups_are_installed(
    tmp_path: Path, marker: str, in_the_job: bool
) -> None:
    groups = 'extras = ["gpu"]\ndependency-groups = ["default", "test"]\ndefault-groups = ["default"]\n'
    (tmp_path / "pylock.toml").write_text(f"{LOCK}{groups}{SIX}marker = '{marker}'\n")

    text, errors = read(tmp_path, "pylock.toml")

    assert errors == []
    (line, *_) = text.splitlines()
    requirement = Requirement(line.removesuffix("\\"))
    assert requirement.marker
    assert requirement.marker.evaluate() is in_the_job


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("no.txt", None, "requirements does not exist: {folder}/no.txt"),
        ("folder.txt", "", "requirements cannot be read from folder.txt: [Errno 21] Is a directory"),
        ("a.txt", b"\xff", "requirements cannot be read from a.txt: it is not UTF-8"),
        ("pylock.toml", "x", "requirements cannot be read from pylock.toml: Expected '='"),
        ("pylock.toml", "a = 1", "requirements cannot be read from pylock.toml: it is not a lock of PEP 751: Missing"),
        (
            "pylock.toml",
            LOCK + SIX.replace('version = "1.17.0"\n', ""),
            "requirements cannot be read from pylock.toml: it has no version of six",
        ),
        ("pylock.toml", LOCK.replace("1.0", "2.0") + SIX, "requirements cannot be read from pylock.toml: it is not a"),
        (
            "pylock.toml",
            f"{LOCK}[[packages]]\nname = 'mine'\ndirectory = {{ path = '../mine' }}",
            "requirements cannot be read from pylock.toml: it needs ../mine, which is not below its folder",
        ),
        (
            "pylock.toml",
            f"{LOCK}[[packages]]\nname = 'mine'\ndirectory = {{ path = '..' }}",
            "requirements cannot be read from pylock.toml: it needs .., which is not below its folder",
        ),
        ("poetry.lock", "", "requirements cannot be read from poetry.lock: it is not a lock called pylock.toml,"),
        ("conf.toml", "", "requirements cannot be read from conf.toml: it is not a lock called pylock.toml,"),
        ("pyproject.toml", PROJECT, "requirements cannot be read from pyproject.toml: it has no lock beside it, uv.lo"),
        ("uv.lock", "version = 1", "requirements cannot be read from uv.lock: it has no pyproject.toml beside it"),
    ],
)
def test_a_file_without_requirements_is_reported_in_one_sentence(
    tmp_path: Path, name: str, content: str | bytes | None, error: str
) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    text, (found,) = read(tmp_path, name)

    assert text == ""
    assert found.startswith(error.format(folder=tmp_path))
    assert "\n" not in found


def test_a_lock_that_uv_cannot_export_is_reported_in_its_words(project: Path) -> None:
    (project / "uv.lock").write_text("version = 'x'")

    _, (error,) = read(project, "uv.lock")

    assert error.startswith("requirements cannot be read from uv.lock: uv cannot export it: Failed to parse `uv.lock`")


def test_a_worker_without_uv_asks_for_another_lock(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements_file, "_find_uv", lambda: None)

    _, (error,) = read(project, "uv.lock")

    assert error == (
        "requirements cannot be read from uv.lock: that needs uv on the worker: install it there, or name a"
        " pylock.toml, which `uv export --format pylock.toml --output-file pylock.toml` writes"
    )


def test_a_package_of_a_lock_is_installed_by_its_hash(tmp_path: Path, settings: ClientSettings) -> None:
    (tmp_path / "wheels").mkdir()
    package = wheel(tmp_path / "wheels")
    digest = sha256(package.read_bytes()).hexdigest()
    archive = f"archive = {{ path = 'wheels/{package.name}', hashes = {{ sha256 = '{digest}' }} }}"
    (tmp_path / "pylock.toml").write_text(f"{LOCK}[[packages]]\nname = 'handed-over'\n{archive}")
    described = {**COMMON, "script": "import handed_over\n", "data": {"wheels": "wheels"}}
    values, errors = with_requirements({**described, "requirements": "pylock.toml"}, tmp_path)
    parameters = TrainingParameters.read(values)
    state, log = asyncio.run(train(settings, parameters, tmp_path))

    assert errors == []
    assert state is JobState.SUCCEEDED, log
    assert "handed over" in log
