"""TensorBoard's event files in the folder of a job, as curves."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_training.service.insights import event_files
from airflow_training.service.insights.curves import read_curves
from airflow_training.service.insights.event_files import read_new_scalars, unread_phase
from tests.patience import PATIENCE, wait_for
from tests.service.event_files import NAME, new_scalar, old_scalar, record, state_of, write_by_tensorboard
from tests.service.support import RunningService, Tenant


def scalars_of(state: Path) -> dict[str, list[tuple[float, float]]]:
    curves = read_curves([state / "scalars.ndjson"], 1000).curves
    assert {curve.unit for curve in curves} <= {"step"}
    return {curve.name: [(point.step, point.value) for point in curve.points] for curve in curves}


def run(state: Path) -> None:
    subprocess.run([sys.executable, "-m", event_files.__name__, str(state)], check=True, timeout=PATIENCE)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


@pytest.fixture
def state(tmp_path: Path, files: Path) -> Path:
    return state_of(tmp_path / "state", files)


def test_scalars_are_named_by_their_run_and_tag(files: Path, state: Path) -> None:
    write_by_tensorboard(files / "logs" / "train", [0.5, 0.25])
    (files / NAME).write_bytes(old_scalar("loss", 3, 0.5) + new_scalar("nested/accuracy", 4, 0.75))
    assert unread_phase(state) == "ended"
    read_new_scalars(state)
    assert scalars_of(state) == {
        "logs/train/loss": [(0, 0.5), (1, 0.25)],
        "loss": [(3, 0.5)],
        "nested/accuracy": [(4, 0.75)],
    }
    assert not unread_phase(state)


def test_a_growing_file_is_read_incrementally(files: Path, state: Path) -> None:
    (state / "exit.json").unlink()
    files = files.rename(state / "files")
    whole = old_scalar("a", 1, 1.0) + new_scalar("b", 1, 1.0) + old_scalar("a", 2, 0.5) + new_scalar("b", 2, 0.5, "")
    for end in range(0, len(whole) + 1, 25):
        (files / NAME).write_bytes(whole[:end])
        read_new_scalars(state)
    (files / NAME).write_bytes(whole)
    read_new_scalars(state)
    assert scalars_of(state) == {"a": [(1, 1.0), (2, 0.5)], "b": [(1, 1.0), (2, 0.5)]}
    assert [curve.total for curve in read_curves([state / "scalars.ndjson"], 10).curves] == [2, 2]


def test_a_killed_reader_writes_no_point_twice(files: Path, state: Path) -> None:
    (files / NAME).write_bytes(old_scalar("a", 1, 1.0))
    read_new_scalars(state)
    (state / "scalars.json").unlink()
    read_new_scalars(state)
    assert [curve.total for curve in read_curves([state / "scalars.ndjson"], 10).curves] == [1]


def test_only_scalars_are_read(files: Path, state: Path) -> None:
    (files / NAME).write_bytes(
        new_scalar("text", 1, "words", "text")
        + new_scalar("image", 1, [1.0, 2.0], "images")
        + new_scalar("many", 1, [1.0, 2.0])
        + new_scalar("words", 1, "words")
        + old_scalar("nan", 1, float("nan"))
        + old_scalar("inf", 1, float("inf"))
        + old_scalar("when", 1, 1.0, at=float("nan"))
        + old_scalar("", 1, 1.0)
        + old_scalar("x" * 400, 1, 1.0)
        + old_scalar("a\nb", 1, 1.0)
        + old_scalar("__proto__", 1, 1.0)
    )
    read_new_scalars(state)
    assert scalars_of(state) == {"__proto__": [(1, 1.0)]}


@pytest.mark.parametrize(
    ("garbage", "goes_on"),
    [
        (b"garbage" * 100, False),
        (old_scalar("a", 1, 1.0)[:-3], False),
        (record(b"", claimed=8 * 1024**3), False),
        (record(b"", claimed=2**64 - 1), False),
        (record(b"no event"), True),
        (record(b""), True),
    ],
)
def test_scalars_before_the_damage_and_other_files_are_read(
    files: Path, state: Path, garbage: bytes, goes_on: bool
) -> None:
    (files / NAME).write_bytes(old_scalar("before", 1, 1.0) + garbage + old_scalar("after", 1, 1.0))
    (files / "run").mkdir()
    (files / "run" / NAME).write_bytes(old_scalar("a", 1, 1.0))
    run(state)
    assert scalars_of(state).keys() == {"before", "run/a", *(["after"] if goes_on else [])}
    assert not unread_phase(state)


@settings(max_examples=60, deadline=None)
@given(content=st.binary(max_size=300), whole=st.booleans())
def test_garbage_does_no_harm(tmp_path_factory: pytest.TempPathFactory, content: bytes, whole: bool) -> None:
    folder = tmp_path_factory.mktemp("garbage")
    (folder / NAME).write_bytes(record(content) if whole else content)
    state = state_of(folder / "state", folder)
    read_new_scalars(state)
    scalars_of(state)


def test_of_ten_thousand_files_a_thousand_are_read(files: Path, state: Path) -> None:
    for number in range(10_000):
        (files / f"{NAME}.{number:05}").touch()
    (files / f"{NAME}.00000").write_bytes(old_scalar("a", 1, 1.0))

    def read() -> int:
        read_new_scalars(state)
        return len(json.loads((state / "scalars.json").read_text())["files"])

    # A run is limited in CPU time too: a slow machine needs several.
    wait_for(lambda: read() >= 1000, "A thousand files")
    assert scalars_of(state) == {"a": [(1, 1.0)]}
    assert read() == 1000


def test_many_large_empty_files_are_read_once(files: Path, state: Path) -> None:
    (files / f"a.{NAME}").write_bytes(old_scalar("a", 1, 1.0))
    for number in range(400):
        with (files / f"{NAME}.{number}").open("wb") as file:
            file.truncate(64 * 1024 * 1024)
    run(state)
    assert scalars_of(state) == {"a": [(1, 1.0)]}
    assert not unread_phase(state)


def test_a_run_that_is_rarely_scheduled_reads_all(files: Path, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "ab":
        (files / f"{NAME}.{name}").write_bytes(old_scalar(name, 1, 1.0))
    # An hour of wall-clock time passes between two readings.
    monkeypatch.setattr("time.monotonic", count(step=3600).__next__)
    read_new_scalars(state)
    assert scalars_of(state) == {"a": [(1, 1.0)], "b": [(1, 1.0)]}


def test_a_record_that_takes_longer_than_a_run_is_read(
    files: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_files, "_CPU_SECONDS", 0.1)
    large = new_scalar("text", 1, "x" * 4 * 1024 * 1024, "text")
    (files / NAME).write_bytes(large + old_scalar("after", 1, 1.0) + large)
    runs = 0
    while unread_phase(state):
        read_new_scalars(state)
        runs += 1
        assert runs <= 3
    assert scalars_of(state) == {"after": [(1, 1.0)]}


def test_a_removed_file_is_forgotten(files: Path, state: Path) -> None:
    (state / "exit.json").unlink()
    files = files.rename(state / "files")
    for number in range(3):
        name = files / f"{NAME}.{number}"
        name.write_bytes(old_scalar("a", number, 1.0))
        read_new_scalars(state)
        name.unlink()
    assert scalars_of(state)["a"] == [(0, 1.0), (1, 1.0), (2, 1.0)]
    assert list(json.loads((state / "scalars.json").read_text())["files"]) == [f"{NAME}.2"]


@pytest.mark.parametrize(
    "content", ["", '{"read": 0}', "[]", "null", '{"read": "1", "complete": 0, "files": {}}', "[" * 9999]
)
def test_damaged_progress_is_discarded(files: Path, state: Path, content: str) -> None:
    (files / NAME).write_bytes(old_scalar("a", 1, 1.0))
    (state / "scalars.json").write_text(content)
    read_new_scalars(state)
    assert scalars_of(state) == {"a": [(1, 1.0)]}
    assert not unread_phase(state)


def test_links_out_of_the_folder_are_not_followed(tmp_path: Path, files: Path, state: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / NAME).write_bytes(old_scalar("secret", 1, 1.0))
    (files / NAME).symlink_to(other / NAME)
    (files / "run").symlink_to(other)
    os.mkfifo(files / f"pipe.{NAME}")
    (files / f"real.{NAME}").write_bytes(old_scalar("mine", 1, 1.0))
    read_new_scalars(state)
    assert scalars_of(state) == {"mine": [(1, 1.0)]}


def test_tensorflow_is_never_loaded(tmp_path: Path, files: Path, state: Path) -> None:
    (files / NAME).write_bytes(old_scalar("a", 1, 1.0) + new_scalar("b", 1, 1.0))
    trap = tmp_path / "trap" / "tensorflow"
    trap.mkdir(parents=True)
    (trap / "__init__.py").write_text(f"open({str(tmp_path / 'loaded')!r}, 'w')")
    program = f"import sys; sys.path.insert(0, {str(trap.parent)!r}); sys.argv = ['', {str(state)!r}]\n"
    program += f"import runpy; runpy.run_module({event_files.__name__!r}, run_name='__main__')"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)
    assert scalars_of(state).keys() == {"a", "b"}
    assert not (tmp_path / "loaded").exists()


def test_scalars_are_seen_while_the_job_runs_and_stay(tenant: Tenant) -> None:
    first, second = (base64.b64encode(old_scalar("loss", step, 1 / step)).decode() for step in (1, 2))
    job_id = tenant.submit(f"""
        mkdir logs; echo {first} | base64 -d > logs/{NAME}; while ! test -e go; do sleep 0.05; done
        echo {second} | base64 -d >> logs/{NAME}
    """)
    wait_for(lambda: "logs/loss" in tenant.curves(job_id), "the first scalar")
    (tenant.work(job_id) / "go").touch()
    tenant.wait(job_id)
    wait_for(lambda: len(tenant.curves(job_id)["logs/loss"]["points"]) == 2, "the second scalar")
    curve = tenant.curves(job_id)["logs/loss"]
    assert (curve["unit"], curve["points"]) == ("step", [[1795594084.0, 1, 1], [1795594084.0, 2, 0.5]])


def test_a_service_without_tensorboard_returns_the_curves_of_the_log(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text("import sys; sys.modules['tensorboard'] = None")
    service = RunningService(tmp_path, {"PYTHONPATH": str(hidden)})
    with service.running():
        tenant = Tenant(service)
        content = base64.b64encode(old_scalar("loss", 1, 1.0)).decode()
        job_id = tenant.submit(f"""
            echo {content} | base64 -d > {NAME}; touch saved_model.pb; echo '{{"metrics": {{"a": 1}}}}'
        """)
        tenant.wait(job_id)
        assert tenant.curves(job_id).keys() == {"a"}
        model = tenant.http.get(f"jobs/{job_id}/model").json()
        assert "saved_model.pb" in [file["name"] for file in model["files"]]
        assert model["signatures"] is None
        assert "the extra tensorboard" in model["reason"]
        tenant.leave()
