"""`airflow-training submit`, `jobs`, `status`, `logs`, `cancel`, `download`: a training without Airflow."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

import pytest

from airflow_training.api.description import JobDescription
from airflow_training.client.client import TrainingClient
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import Upload
from airflow_training.local.service import LocalService
from tests.cli.commands import Command, job_file
from tests.patience import PATIENCE

NAMES = ("a", "a.incomplete", ".a-", ".a")
MODEL = "mkdir -p model/1 && cp given.txt model/1/saved_model.pb"


def submit(command: Command, file: Path) -> str:
    done = command("submit", str(file), "--json")
    assert done.code == 0, done.err
    job_id: str = done.json["job_id"]
    return job_id


def wait(command: Command, job_id: str, *states: str) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        state: str = command("status", job_id, "--json").json["status"]
        if state in states:
            return state
    raise AssertionError(f"{job_id} was not {states} within a minute")


def test_a_job_is_submitted_with_its_files_and_followed_to_its_end(command: Command, tmp_path: Path) -> None:
    (tmp_path / "given.txt").write_text("hello\n")
    (tmp_path / "folder" / "below").mkdir(parents=True)
    (tmp_path / "folder" / "below" / "name").write_text("world\n")
    file = job_file(tmp_path, "cat given.txt data/below/name", {"given.txt": "given.txt", "data": "folder"})

    done = command("submit", str(file), "--follow")

    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if "[service]" not in line][-2:] == ["hello", "world"]
    assert "Uploaded 2 files (12 bytes)" in done.err
    assert "is SUCCEEDED" in done.err


def test_following_a_job_that_fails_ends_with_an_exit_code(command: Command, tmp_path: Path) -> None:
    done = command("submit", str(job_file(tmp_path, "echo before; exit 9")), "--follow")

    assert done.code == 3
    assert "before" in done.out.splitlines()
    assert "is FAILED" in done.err


def test_a_job_is_listed_shown_and_canceled(command: Command, tmp_path: Path) -> None:
    job_id = submit(command, job_file(tmp_path, "sleep 600"))
    wait(command, job_id, "RUNNING")

    listed = command("jobs")
    shown_status = command("status", job_id)
    canceled = command("cancel", job_id)

    assert next(line for line in listed.out.splitlines() if job_id in line).split()[1:3] == ["by-hand", "RUNNING"]
    assert ["status", "RUNNING"] in [line.split() for line in shown_status.out.splitlines()]
    assert canceled.code == 0
    assert wait(command, job_id, "CANCELED")
    assert f"The job {job_id} has already ended: CANCELED." in command("cancel", job_id).out


def test_the_log_of_a_job_that_has_ended_is_complete(command: Command, tmp_path: Path) -> None:
    count = 20_000
    job_id = submit(command, job_file(tmp_path, f"seq {count}; printf no-line-feed"))
    wait(command, job_id, "SUCCEEDED")

    plain = command("logs", job_id)
    records = command("logs", job_id, "--json")
    timed = command("logs", job_id, "--timestamps")

    wanted = [*map(str, range(1, count + 1)), "no-line-feed"]
    assert [line for line in plain.out.splitlines() if "[service]" not in line] == wanted
    lines = [json.loads(record) for record in records.out.splitlines()]
    assert [record["line"] for record in lines if "[service]" not in record["line"]] == wanted
    assert timed.out.splitlines()[-1].split()[0].count(":") == 2


def test_a_log_is_followed_over_a_restart_of_the_service(
    command: Command, tmp_path: Path, service: LocalService
) -> None:
    go_on = tmp_path / "go-on"
    job_id = submit(command, job_file(tmp_path, f"echo one; until [ -e {go_on} ]; do sleep 0.1; done; echo two"))
    wait(command, job_id, "RUNNING")
    following = subprocess.Popen(
        [sys.executable, "-m", "airflow_training.cli.main", "logs", "--follow", job_id],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert following.stdout
        next(line for line in following.stdout if line == "one\n")
        service.stop()
        go_on.touch()
        service.start()
        out, _ = following.communicate(timeout=PATIENCE)
    finally:
        following.kill()

    assert following.returncode == 0
    assert [line for line in out.splitlines() if "[service]" not in line] == ["two"]


def test_the_model_of_a_job_is_downloaded(command: Command, tmp_path: Path) -> None:
    (tmp_path / "given.txt").write_text("model")
    job_id = submit(command, job_file(tmp_path, f"{MODEL}; touch other", {"given.txt": "given.txt"}))
    wait(command, job_id, "SUCCEEDED")
    target = tmp_path / "here"

    first = command("download", job_id, str(target), "--json")
    again = command("download", job_id, str(target), "--json")
    everything = command("download", job_id, str(tmp_path / "all"), "--all", "--json")

    assert first.code == 0, first.err
    assert [path.name for path in target.iterdir()] == ["saved_model.pb"]
    assert (target / "saved_model.pb").read_text() == "model"
    assert (first.json["copied"], again.json["copied"], again.json["files"]) == (1, 0, 1)
    assert everything.json["files"] == 3
    assert (tmp_path / "all" / "model" / "1" / "saved_model.pb").read_text() == "model"


def test_the_other_models_are_named(command: Command, tmp_path: Path) -> None:
    (tmp_path / "given.txt").write_text("model")
    checkpoint = "mkdir -p checkpoints/100 && cp given.txt checkpoints/100/saved_model.pb"
    job_id = submit(command, job_file(tmp_path, f"{checkpoint}; {MODEL}", {"given.txt": "given.txt"}))
    wait(command, job_id, "SUCCEEDED")

    done = command("download", job_id, str(tmp_path / "here"), "--json")

    assert done.json["from"].endswith("/model/1")
    assert "using model/1; ignored: checkpoints/100" in done.err


@pytest.mark.parametrize(
    ("model", "copied"), [("out/*.txt", ["b.txt"]), ("out", ["b.txt", "c"]), ("", ["given.txt", "out/b.txt", "out/c"])]
)
def test_what_a_job_hands_on_is_downloaded(command: Command, tmp_path: Path, model: str, copied: list[str]) -> None:
    (tmp_path / "given.txt").write_text("model")
    file = job_file(tmp_path, "mkdir out; cp given.txt out/b.txt; touch out/c", {"given.txt": "given.txt"}, model=model)
    job_id = submit(command, file)
    wait(command, job_id, "SUCCEEDED")

    here = tmp_path / "here"
    done = command("download", job_id, str(here), "--json")

    assert done.code == 0, done.err
    assert sorted(str(path.relative_to(here)) for path in here.rglob("*") if path.is_file()) == copied


@pytest.mark.parametrize("job_id", ["flood-1", "N"])
def test_a_job_with_any_id_can_be_managed(
    command: Command, tmp_path: Path, settings: ClientSettings, job_id: str
) -> None:
    execution = {"command": MODEL, "completionTime": "10m", "resources": {"memory": 256}}
    description = JobDescription.from_wire({"name": "a", "execution": execution})

    async def submit_it() -> None:
        async with TrainingClient(settings) as client:
            await (await client.storage()).upload(f"jobs/a-{job_id}", [Upload("given.txt", b"model")])
            await client.submit(job_id, description)

    asyncio.run(submit_it())

    followed = command("logs", job_id, "--follow")
    assert followed.code == 0, followed.err
    assert f"job id        {job_id}" in command("status", job_id).out
    assert command("download", job_id, str(tmp_path / "here")).code == 0
    assert f"The job {job_id} has already ended: SUCCEEDED." in command("cancel", job_id).out


@pytest.mark.parametrize("job_id", ["", "..", "../jobs", "a/b", "a?b", "é"])
def test_an_invalid_id_is_rejected_at_once(command: Command, job_id: str) -> None:
    for name in ("status", "cancel"):
        done = command(name, job_id)

        assert done.code == 2
        assert "is not a valid job id" in done.err


def test_a_value_of_a_job_file_arrives_as_it_was_written(command: Command, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(
        "job: {name: by-hand, env: [{name: A, value: 3.10}, {name: B, value: no}, {name: C, value: 010},"
        " {name: D, value: 22:30:00}], execution: {command: 'echo $A $B $C $D', completionTime: 10m}}"
    )
    done = command("submit", str(tmp_path / "job.yaml"), "--follow")

    assert done.out.splitlines()[-1] == "3.10 no 010 22:30:00"


def test_a_download_leaves_its_folder_by_no_link(command: Command, tmp_path: Path) -> None:
    job_id = submit(command, job_file(tmp_path, "mkdir out; echo new > out/file"))
    wait(command, job_id, "SUCCEEDED")
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    target.mkdir()
    (target / "out").symlink_to(elsewhere)

    done = command("download", job_id, str(target), "--all")

    assert done.code == 1
    assert "would lie outside of" in done.err
    assert not list(elsewhere.iterdir())


def test_a_download_without_a_model_suggests_all_files(command: Command, tmp_path: Path) -> None:
    job_id = submit(command, job_file(tmp_path, "true"))
    wait(command, job_id, "SUCCEEDED")

    done = command("download", job_id, str(tmp_path / "here"))

    assert done.code == 1
    assert "has left no model: neither what its description names nor, if that names none, a SavedModel" in done.err
    assert "`--all`" in done.err
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("words", [("status",), ("logs",), ("logs", "--follow"), ("cancel",)])
def test_an_unknown_job_is_reported_in_a_sentence(command: Command, words: tuple[str, ...]) -> None:
    done = command(*words, str(uuid4()))

    assert (done.code, done.out) == (1, "")
    assert "does not know the job" in done.err


def test_all_errors_in_a_job_file_are_reported_before_anything_is_sent(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINING_URL", "http://127.0.0.1:9")
    file = tmp_path / "job.yaml"
    file.write_text(
        "job: {name: a b, execution: {command: 'true', completiontime: 1h}}\nfiles: {../out: x, in: nowhere}\n"
    )

    done = command("submit", str(file))

    assert done.code == 1
    for mistake in (
        "job.name: string should match",
        "completionTime: field required",
        "completiontime: is unknown",
        "files.../out: '../out' is not a file name",
        f"files.in: {tmp_path / 'nowhere'} does not exist",
    ):
        assert mistake in done.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("job: [", "is neither YAML nor JSON"),
        ("", "must have `job`"),
        ("- a list", "must have `job`"),
        (
            "job: {name: a, execution: {command: 'true', completionTime: 1h}}\nfiles: {a: nowhere}",
            "nowhere does not exist",
        ),
        ("job: {name: a, execution: {command: 'true', completionTime: 1h}}\nfile: {a: b}", "file: is unknown"),
        ("files: {a: 5}", "files.a: input should be a valid string: write it in quotes, '5'"),
        ("job: {name: 1067}", "job.name: input should be a valid string: write it in quotes, '1067'"),
        (
            "job: {name: a, execution: {command: 'true', completionTime: 1:30:00}}",
            "job.execution.completionTime: is not a time such as '20h', '1h30m', 'PT1H30M' or a number",
        ),
        ("files: {a: ''}", "files.a: string should have at least 1 character"),
        ("files: {a: ~nobody-is-called-so/x}", "files.a: Could not determine home directory"),
        (f"files: {{a: {'x' * 300}}}", "files.a: [Errno 36] File name too long"),
        ("files: {a: empty}", "empty is an empty folder"),
        ("files: {a: linked}", "linked is an empty folder"),
        ("files: {a: back}", "back/to is a link that leads back to"),
        ("files: {a: dangling}", "dangling is a link to nowhere, which does not exist"),
        ("files: {a: pipe}", "pipe is not a file but a pipe, a socket or a device"),
    ],
)
def test_an_invalid_job_file_is_reported_in_a_sentence(
    command: Command, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "job.yaml"
    (tmp_path / "empty").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "to").symlink_to(tmp_path / "empty")
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "to").symlink_to(tmp_path / "back")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    if content is not None:
        file.write_text(content)

    done = command("submit", str(file))

    assert (done.code, done.out) == (1, "")
    assert message in done.err


def test_a_terminal_that_cannot_encode_a_character_still_shows_the_log(command: Command, tmp_path: Path) -> None:
    job_id = submit(command, job_file(tmp_path, "printf 'loss \\342\\206\\223\\n'; echo after"))
    wait(command, job_id, "SUCCEEDED")

    done = subprocess.run(
        [sys.executable, "-m", "airflow_training.cli.main", "logs", job_id],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == ["loss ?", "after"]


def test_the_log_of_a_running_job_is_shown_in_whole_lines(command: Command, tmp_path: Path) -> None:
    job_id = submit(command, job_file(tmp_path, "while true; do seq 1000000 1000200; sleep 0.01; done"))
    wait(command, job_id, "RUNNING")

    shown = ""
    while len(shown) < 64 * 1024:
        shown = command("logs", job_id).out
        numbers = [line for line in shown.splitlines() if "[service]" not in line]
        assert all(line.isdecimal() and len(line) == 7 for line in numbers)
    command("cancel", job_id)


def test_an_unknown_job_does_not_prevent_others_from_being_canceled(command: Command, tmp_path: Path) -> None:
    job_id = submit(command, job_file(tmp_path, "sleep 600"))

    done = command("cancel", str(uuid4()), job_id)

    assert done.code == 1
    assert "does not know the job" in done.err
    assert wait(command, job_id, "CANCELED")


def test_ids_are_whole_on_a_narrow_terminal(command: Command, tmp_path: Path) -> None:
    job_id = submit(command, job_file(tmp_path, "true"))
    words = [sys.executable, "-m", "airflow_training.cli.main", "jobs"]
    ours, theirs = os.openpty()
    with subprocess.Popen(words, stdout=theirs, stdin=theirs, env={**os.environ, "COLUMNS": "60"}) as process:
        os.close(theirs)
        shown = b"".join(iter(lambda: read_terminal(ours), b""))
    os.close(ours)

    assert process.returncode == 0
    assert job_id in shown.decode()


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux reports that the writer has closed the terminal
        return b""


def test_files_of_any_name_are_downloaded_beside_each_other(command: Command, tmp_path: Path) -> None:
    job_id = submit(command, job_file(tmp_path, f"mkdir out; for i in {' '.join(NAMES)}; do echo $i > out/$i; done"))
    wait(command, job_id, "SUCCEEDED")

    done = command("download", job_id, str(tmp_path / "here"), "--all")

    assert done.code == 0, done.err
    files = (tmp_path / "here" / "out").iterdir()
    assert {file.name: file.read_text().strip() for file in files} == {name: name for name in NAMES}
