"""The files of a job, in a folder and in a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from airflow_training.service.storage.job_files import JobFiles, LocalFiles, NotCopied, S3Files

CONTENT = {"a.csv": b"1,2", "model/1/m": b"model", "ünï/日本": b""}


def in_folder(folder: Path) -> JobFiles:
    bucket = folder / "bucket"
    for name, content in CONTENT.items():
        (bucket / name).parent.mkdir(parents=True, exist_ok=True)
        (bucket / name).write_bytes(content)
    (bucket / "link").symlink_to("/etc/passwd")
    return LocalFiles(bucket)


def in_store(folder: Path) -> JobFiles:
    store = MemoryStore()
    for name, content in CONTENT.items():
        obstore.put(store, f"tenant/job/{name}", content)
    obstore.put(store, "tenant/job-of-another/a.csv", b"")
    return S3Files(store, "tenant/job")  # type: ignore[arg-type]


@pytest.fixture(params=[in_folder, in_store])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> JobFiles:
    make: Callable[[Path], JobFiles] = request.param
    return make(tmp_path)


def test_the_files_are_listed_and_read_in_parts(files: JobFiles) -> None:
    assert [(file.name, file.size) for file in files.all()] == [(name, len(CONTENT[name])) for name in sorted(CONTENT)]
    assert files.read("model/1/m", 2, 2) == b"de"
    assert files.read("link", 0, 9) == files.read("missing", 0, 9) == b""


def test_the_files_are_fetched_and_put_back(files: JobFiles, tmp_path: Path) -> None:
    work, part = tmp_path / "work", tmp_path / "part"
    work.mkdir()
    files.fetch(work)
    assert {str(file.relative_to(work)): file.read_bytes() for file in work.rglob("*") if file.is_file()} == CONTENT
    (work / "a.csv").write_bytes(b"changed")
    before = {file.name: file.version for file in files.all()}
    files.put(work / "a.csv", "a.csv", part)
    files.put(work / "a.csv", "new/a.csv", part)
    assert files.read("a.csv", 0, 9) == files.read("new/a.csv", 0, 9) == b"changed"
    assert {file.name for file in files.all() if before.get(file.name) != file.version} == {"a.csv", "new/a.csv"}
    with pytest.raises(NotCopied, match="longer than S3 allows"):
        files.put(work / "a.csv", "/".join(["y" * 200] * 6), part)
    assert not part.exists()


def test_the_files_are_removed(files: JobFiles) -> None:
    assert files.remove()
    assert files.all() == []
