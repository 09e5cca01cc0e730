"""The files of a training, checked before the upload."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import Asset, ObjectStoragePath

from airflow_training.api.parameters import TrainingParameters
from airflow_training.api.status import JobState
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import Upload
from airflow_training.exceptions import InvalidParameters
from airflow_training.operators.files import given, input_errors, uploads
from airflow_training.operators.training import TrainingOperator
from tests.operators.support import train
from tests.wheels import wheel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train.py").write_text("print(1)")
    (tmp_path / "a.csv").write_text("1")
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "parts" / "1.csv").write_text("p1")
    (tmp_path / "parts" / "deep" / "2.csv").write_text("p2")
    return tmp_path


def read(**values: Any) -> TrainingParameters:
    return TrainingParameters.read({"job_name": "a", "image": "i", "completion_time": 1, "script": "train.py"} | values)


def contents(files: list[Upload]) -> dict[str, bytes]:
    return {file.name: file.source if isinstance(file.source, bytes) else file.source().read() for file in files}


def test_a_job_folder_contains_script_requirements_and_data(folder: Path) -> None:
    parameters = read(requirements="numpy", data={"data.csv": "a.csv", "raw.bin": b"\0\1", "train": "parts"})

    assert contents(uploads(parameters, folder)) == {
        "train.py": b"print(1)",
        "requirements.txt": b"numpy",
        "data.csv": b"1",
        "raw.bin": b"\0\1",
        "train/1.csv": b"p1",
        "train/deep/2.csv": b"p2",
    }


def test_data_may_be_any_location_that_airflow_knows(folder: Path) -> None:
    file = folder / "a.csv"
    ways = {"path": file, "uri": file.as_uri(), "asset": Asset(file.as_uri()), "object": ObjectStoragePath(str(file))}

    assert set(contents(uploads(read(data=ways), folder)).values()) == {b"1", b"print(1)"}


@pytest.mark.parametrize("path", [Path("a/train.py"), ObjectStoragePath("s3://bucket/a/train.py")])
def test_a_script_may_be_a_path_object(path: Any) -> None:
    task = TrainingOperator(task_id="train", job_name="a", image="i", completion_time=1, script=path)

    assert TrainingParameters.read(given(task)).script_file == "train.py"


def test_a_script_that_is_a_directory_is_refused(folder: Path) -> None:
    assert input_errors({"script": "parts"}, folder) == [
        f"script must be a file: {folder / 'parts'} is a directory; a folder of code is source_dir"
    ]


@pytest.fixture
def code(folder: Path) -> Path:
    code = folder / "code"
    for file in ("train.py", "package/__init__.py", "package/model.py", "package/__pycache__/model.pyc", ".git/config"):
        (code / file).parent.mkdir(parents=True, exist_ok=True)
        (code / file).write_text(file)
    return code


@pytest.mark.parametrize("script", ["train.py", "package/model.py", "-m package.model"])
def test_a_folder_of_code_is_the_content_of_the_job_folder(folder: Path, code: Path, script: str) -> None:
    values = {"source_dir": "code", "script": script, "data": {"a.csv": "a.csv"}}

    assert input_errors(values, folder) == []
    assert sorted(contents(uploads(read(**values), folder))) == [
        "a.csv",
        "package/__init__.py",
        "package/model.py",
        "train.py",
    ]


def test_the_text_of_a_program_runs_beside_its_package(folder: Path, code: Path) -> None:
    program = "from package import model\nmodel.fit()\n"

    assert contents(uploads(read(source_dir="code", script=program), folder))["train.py"] == program.encode()


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"source_dir": "no-such"}, "source_dir does not exist: {folder}/no-such"),
        ({"source_dir": "a.csv"}, "source_dir must be a folder: {folder}/a.csv is a file"),
        ({"source_dir": "code/", "script": "other.py"}, "script does not exist: {folder}/code/other.py"),
    ],
)
def test_a_mistake_in_a_folder_of_code_is_found_before_the_upload(
    folder: Path, code: Path, values: dict[str, Any], error: str
) -> None:
    assert error.format(folder=folder) in input_errors({"script": "train.py"} | values, folder)


def test_a_folder_of_code_that_no_provider_reads_is_a_mistake(folder: Path) -> None:
    for error in input_errors({"script": "train.py", "source_dir": "no-such://code"}, folder):
        assert "cannot be read from no-such://code" in error


def test_data_and_code_must_not_have_the_same_name(folder: Path, code: Path) -> None:
    (code / "package" / "1.csv").touch()

    with pytest.raises(InvalidParameters, match=r"data must not contain 'package/1.csv': source_dir has a file"):
        uploads(read(source_dir="code", data={"package": "parts"}), folder)


def test_a_program_text_is_uploaded_unchanged(folder: Path) -> None:
    assert contents(uploads(read(script="print(2)\n"), folder)) == {"train.py": b"print(2)\n"}


def test_all_missing_files_are_listed(folder: Path) -> None:
    errors = input_errors({"script": "trian.py", "data": {"a": "b.csv", "b": "a.csv", "c": "no-such://x/y"}}, folder)

    assert len(errors) == 3
    assert errors[0] == f"script does not exist: {folder / 'trian.py'}"
    assert errors[1].startswith("data 'a' does not exist")
    assert errors[2].startswith("data 'c' cannot be read from no-such://x/y")


def test_links_are_followed_as_a_mounted_configmap_and_git_sync_need_it(folder: Path) -> None:
    mounted = folder / "mounted"
    (mounted / "..2026").mkdir(parents=True)
    (mounted / "..2026" / "labels.csv").write_text("l")
    (mounted / "..data").symlink_to("..2026")
    (mounted / "labels.csv").symlink_to("..data/labels.csv")
    (mounted / "parts").symlink_to(folder / "parts")
    (folder / "current").symlink_to(mounted)
    parameters = read(data={"m": "current", "one.csv": "mounted/labels.csv"})

    assert input_errors({"script": "train.py", "data": parameters.data}, folder) == []
    assert contents(uploads(parameters, folder)) == {
        "train.py": b"print(1)",
        "m/..2026/labels.csv": b"l",
        "m/..data/labels.csv": b"l",
        "m/labels.csv": b"l",
        "m/parts/1.csv": b"p1",
        "m/parts/deep/2.csv": b"p2",
        "one.csv": b"l",
    }


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _loop(path: Path) -> None:
    path.symlink_to(path.parent)


def _to_itself(path: Path) -> None:
    path.symlink_to(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        os.chdir(path.parent)  # the path of a socket is limited in length
        listening.bind(path.name)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _not_utf8(path: Path) -> None:
    Path(os.fsdecode(bytes(path) + b"\xff")).touch()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_dangling, "odd is a link to nowhere, which does not exist"),
        (_loop, "odd is a link that leads back to"),
        (_to_itself, "Too many levels of symbolic links"),
        (os.mkfifo, "odd is not a file but a pipe, a socket or a device"),
        (_socket, "odd is not a file but a pipe, a socket or a device"),
        (_device, "odd is not a file but a pipe, a socket or a device"),
        (_not_utf8, "odd\\udcff' has a name that is not UTF-8"),
    ],
)
def test_files_that_cannot_be_sent_are_found_before_the_upload(
    folder: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], None], message: str
) -> None:
    monkeypatch.chdir(folder)  # and back at the end
    make(folder / "parts" / "deep" / "odd")

    (error,) = input_errors({"script": "train.py", "data": {"p": "parts"}}, folder)

    assert error.startswith("data 'p' cannot be read from parts: ")
    assert message in error


@pytest.mark.parametrize("what", ["script", "data"])
def test_a_pipe_in_place_of_a_file_is_found_and_not_opened(folder: Path, what: str) -> None:
    os.mkfifo(folder / "pipe")
    values = {"script": "pipe"} if what == "script" else {"data": {"a": "pipe"}}

    (error,) = input_errors(values, folder)

    assert error.endswith("pipe is not a file but a pipe, a socket or a device")


def test_a_dangling_link_is_reported_as_such(folder: Path) -> None:
    (folder / "link").symlink_to("nowhere")

    (error,) = input_errors({"data": {"a": "link"}}, folder)

    assert error.endswith("link is a link to nowhere, which does not exist")


def test_of_many_files_that_cannot_be_sent_the_first_are_named(folder: Path) -> None:
    for number in range(9):
        (folder / "parts" / f"{number}.odd").symlink_to("nowhere")

    (error,) = input_errors({"data": {"p": "parts"}}, folder)

    assert error.count("nowhere") == 3
    assert error.endswith("; and 6 more")


def test_a_wheel_among_the_data_is_installed_by_its_hash(tmp_path: Path, settings: ClientSettings) -> None:
    file = wheel(tmp_path)
    digest = sha256(file.read_bytes()).hexdigest()
    parameters = read(
        script="import handed_over\n",
        requirements=f"\ufeff# by hash\n./wheels/{file.name} \\\n    --hash=sha256:{digest}",
        data={"wheels": str(tmp_path)},
        completion_time="5m",
    )
    state, log = asyncio.run(train(settings, parameters, tmp_path))

    assert state is JobState.SUCCEEDED, log
    assert "handed over" in log


@pytest.mark.parametrize("values", [{}, {"script": 3, "data": 4}, {"script": "a\nb", "data": {"x": b"", "y": None}}])
def test_invalid_parameters_are_not_looked_up_as_files(folder: Path, values: dict[str, Any]) -> None:
    assert input_errors(values, folder) == []
