"""The files of a job, in a folder and in a store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from airflow_training.service.storage.job_files import JobFiles, LocalFiles, NotCopied, S3Files, size_of

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


@pytest.mark.parametrize("largest", [S3Files.LARGEST_COPY, 0])
def test_a_copy_has_the_content_and_a_changed_file_another_version(
    files: JobFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, largest: int
) -> None:
    monkeypatch.setattr(S3Files, "LARGEST_COPY", largest)
    work = tmp_path / "work"
    work.mkdir()
    before = files.fetch(work)
    assert {name: size_of(version) for name, version in before.items()} == {n: len(c) for n, c in CONTENT.items()}
    assert files.versions() == before

    target, copied = other_folder(files)
    for name in before:
        files.copy_to(target, name)
    # Not of the same size: the clock of the file system may not have advanced.
    (work / "a.csv").write_bytes(b"1,2,3")
    files.put(work / "a.csv", "a.csv", tmp_path / "part")

    assert {file.name: copied.read(file.name, 0, 9) for file in copied.all()} == CONTENT
    assert {name for name, version in files.versions().items() if before[name] != version} == {"a.csv"}
    with pytest.raises(OSError, match="missing"):
        files.copy_to(target, "missing")


def other_folder(files: JobFiles) -> tuple[str, JobFiles]:
    if isinstance(files, LocalFiles):
        target = str(files._folder.with_name("copy"))
        return target, LocalFiles(Path(target))
    assert isinstance(files, S3Files)
    return "tenant/copy", S3Files(files._store, "tenant/copy")


def test_the_files_are_removed(files: JobFiles) -> None:
    assert files.remove()
    assert files.all() == []
