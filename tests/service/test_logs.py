"""The log of a job, over the wire and as it is written."""

from __future__ import annotations

import json
import random
import shutil
from datetime import datetime, timezone
from pathlib import Path

import pytest

from airflow_training.api.log import NDJSON, LogDecoder
from airflow_training.service.runners.supervisor.job_log import JobLog, read_checkpoint
from tests.patience import wait_for
from tests.service.support import Tenant


def test_a_log_can_be_read_from_any_byte(tenant: Tenant) -> None:
    job_id = tenant.submit("seq 1 20")
    tenant.wait(job_id)
    url = f"jobs/{job_id}/logs"
    for accept in ("text/plain", NDJSON):
        headers = {"Accept": accept}
        whole = tenant.http.get(url, headers=headers)
        size = len(whole.content)
        assert whole.status_code == 200
        assert whole.headers["Content-Type"].startswith(accept)
        for wanted, start, end in (
            ("bytes=0-", 0, size),
            ("bytes=7-", 7, size),
            ("bytes=3-9", 3, 10),
            ("bytes=3-999999", 3, size),
            (f"bytes={size - 1}-", size - 1, size),
            ("bytes=-5", size - 5, size),
        ):
            part = tenant.http.get(url, headers=headers | {"Range": wanted})
            assert (part.status_code, part.content) == (206, whole.content[start:end])
            assert part.headers["Content-Range"] == f"bytes {start}-{end - 1}/{size}"
        for first in (size, size + 100):
            nothing = tenant.http.get(url, headers=headers | {"Range": f"bytes={first}-"})
            assert (nothing.status_code, nothing.headers["Content-Range"]) == (416, f"bytes */{size}")
            assert nothing.json()["error"]["code"] == "416"
        for unreadable in ("lines=1-", "bytes=9-3", "bytes=0-1,4-5", "bytes=-"):
            assert tenant.http.get(url, headers=headers | {"Range": unreadable}).content == whole.content


def test_a_job_that_waits_has_an_empty_log(tenant: Tenant) -> None:
    running = tenant.submit("while ! test -e go; do sleep 0.05; done", resources={"cpus": 100_000})
    waiting = tenant.submit("true", resources={"cpus": 100_000})
    assert tenant.http.get(f"jobs/{waiting}/logs").content == b""
    nothing = tenant.http.get(f"jobs/{waiting}/logs", headers={"Range": "bytes=0-"})
    assert (nothing.status_code, nothing.headers["Content-Range"]) == (416, "bytes */0")
    (tenant.work(running) / "go").touch()
    tenant.wait(waiting)


def test_a_line_can_be_read_while_the_job_runs_with_its_time(tenant: Tenant) -> None:
    before = datetime.now(timezone.utc)
    job_id = tenant.submit("echo one; while ! test -e go; do sleep 0.05; done; echo two")
    wait_for(lambda: tenant.log(job_id) == "one\n", "the first line")
    between = datetime.now(timezone.utc)
    tenant.wait(job_id, "RUNNING")
    (tenant.work(job_id) / "go").touch()
    tenant.wait(job_id)
    records = LogDecoder(ndjson=True).feed(tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).content)
    times = {record.line: record.time for record in records}
    assert times["one"]
    assert times["two"]
    assert before < times["one"] < between < times["two"] < datetime.now(timezone.utc)


def test_the_log_is_complete_when_the_job_has_ended(tenant: Tenant) -> None:
    job_id = tenant.submit("seq 1 200000")
    tenant.wait(job_id)
    assert tenant.log(job_id).split() == [str(number) for number in range(1, 200_001)]
    records = tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).content.splitlines()
    assert [json.loads(record)["line"] for record in records][-200_000:] == tenant.log(job_id).splitlines()


def test_a_log_is_read_correctly_while_it_grows(tenant: Tenant) -> None:
    job_id = tenant.submit("while ! test -e go; do seq 1 1000; done")
    wait_for(lambda: len(tenant.log(job_id)) > 100_000, "a long log")
    first = tenant.http.get(f"jobs/{job_id}/logs").content
    rest = wait_for(lambda: log_from(tenant, job_id, len(first)), "more of the log")
    (tenant.work(job_id) / "go").touch()
    tenant.wait(job_id)
    assert tenant.http.get(f"jobs/{job_id}/logs").content.startswith(first + rest)


def log_from(tenant: Tenant, job_id: str, byte: int) -> bytes:
    reply = tenant.http.get(f"jobs/{job_id}/logs", headers={"Range": f"bytes={byte}-"})
    return reply.content if reply.status_code == 206 else b""


def test_a_line_of_ten_megabytes_arrives(tenant: Tenant) -> None:
    job_id = tenant.submit("head -c 10000000 /dev/zero | tr '\\0' x; echo; echo end")
    tenant.wait(job_id)
    assert tenant.log(job_id) == "x" * 10_000_000 + "\nend\n"
    records = tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).content.splitlines()
    pieces = [json.loads(record) for record in records[1:]]
    assert max(len(piece["line"]) for piece in pieces) <= 64 * 1024
    assert "".join(piece["line"] for piece in pieces) == "x" * 10_000_000 + "end"
    assert [piece.get("continues", False) for piece in pieces] == [True] * (len(pieces) - 2) + [False, False]


def test_binary_output_arrives_as_it_is(tenant: Tenant) -> None:
    job_id = tenant.submit("printf 'a\\377\\000b\\r\\n\\033[1mc'")
    tenant.wait(job_id)
    assert tenant.http.get(f"jobs/{job_id}/logs").content.endswith(b"\na\xff\x00b\r\n\x1b[1mc")
    records = tenant.http.get(f"jobs/{job_id}/logs", headers={"Accept": NDJSON}).content.splitlines()
    assert [json.loads(record)["line"] for record in records[1:]] == ["a�\x00b", "\x1b[1mc"]


@pytest.mark.parametrize("seed", range(5))
def test_records_and_text_agree_wherever_the_output_is_cut(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's chance need not be a secret
    lines = [chance.choice(["", "é", "a\tb", "日本"]) * chance.choice([1, 20, 40_000]) for _ in range(40)]
    content = "\n".join([*lines, "end"]).encode()
    log = JobLog(tmp_path, limit=10**9)
    position = 0
    while position < len(content):
        step = chance.choice([1, 5, 1000, 64 * 1024])
        log.write(content[position : position + step])
        position += step
    log.close()
    assert (tmp_path / "log.txt").read_bytes() == content
    records = [json.loads(record) for record in (tmp_path / "log.ndjson").read_bytes().splitlines()]
    assert "".join(r["line"] + ("" if r.get("continues") else "\n") for r in records) == content.decode() + "\n"
    assert max(len(record["line"].encode()) for record in records) <= 64 * 1024
    times = [record["time"] for record in records]
    assert times == sorted(set(times)), "no two at the same time"


def test_the_state_of_a_line_is_recorded_before_it_ends_and_the_line_comes_once(tmp_path: Path) -> None:
    log = JobLog(tmp_path, limit=10**9)
    written = b"Epoch 1/2\n"
    for step in (b"\r 1/30", b"\r 2/30", b"\r30/30\n", b"testing ..", b"..", b" done\n", b"x" * 100_000, b"y\n"):
        log.write(written if step == b"\r 1/30" else b"")
        log.write(step)
        log.show_line()
    log.close()
    content = (tmp_path / "log.ndjson").read_bytes()
    for size in (1, 1000, len(content)):
        decoder = LogDecoder(ndjson=True)
        shown = [
            record for begin in range(0, len(content), size) for record in decoder.feed(content[begin : begin + size])
        ]
        lines = [record.line for record in shown if not record.unended]
        assert lines[:3] == ["Epoch 1/2", "30/30", "testing .... done"]
        assert len(lines) == 4
        assert lines[3].endswith("more bytes of this line omitted]")
        states = [record.line for record in shown if record.unended]
        assert states[:4] == [" 1/30 …", " 2/30 …", "testing .. …", "testing .... …"]
        assert len(states) == 5
        assert len(states[4]) < 600
        times = [record.time for record in shown if record.time and not record.line.endswith("omitted]")]
        assert times == sorted(set(times))
    assert (tmp_path / "log.txt").read_bytes().count(b"\r") == 3, "the text is what the job wrote"


def test_a_progress_bar_of_megabytes_is_one_record(tmp_path: Path) -> None:
    log = JobLog(tmp_path, limit=10**9)
    for step in range(100_000):
        log.write(b"\r%d of 100000, and as wide as bars are" % step)
    log.write(b"\n")
    log.close()
    (record,) = (tmp_path / "log.ndjson").read_bytes().splitlines()
    assert json.loads(record)["line"] == "99999 of 100000, and as wide as bars are"


@pytest.mark.parametrize("seed", range(5))
def test_a_log_whose_writer_is_killed_again_and_again_resumes_where_it_was(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test's chance need not be a secret
    metrics = [b'\n{"metrics": {"loss": 1}}\n', b"\nEpoch 3/5\n9/9 1s/st", b"ep - loss: 2\n"]
    frames = [
        chance.choice(["", "é", "a\tb", "日本"]).encode() * chance.choice([1, 20, 40_000])
        + chance.choice([b"", b"\n", b"\r\n", b"\r", *metrics])
        for _ in range(60)
    ]
    at = datetime.now(timezone.utc)
    (tmp_path / "whole").mkdir()
    whole = JobLog(tmp_path / "whole", limit=10**9, resumable=True)
    for number, frame in enumerate(frames):
        take(whole, frame, at, number)
    whole.close()

    life, ends = 1, ["files lost", "checkpoint lost"]
    folder = tmp_path / "life-0"
    folder.mkdir()
    log = JobLog(folder, limit=10**9, resumable=True)
    while (number := (read_checkpoint(folder) or {"frames": 0})["frames"]) < len(frames):
        take(log, frames[number], at, number)
        if chance.random() < 0.3:
            # What is there when it is killed in the middle of the next frame, or when the machine loses power.
            after = shutil.copytree(folder, tmp_path / f"life-{life}")
            life += 1
            how = ends.pop() if ends and chance.random() < 0.2 else "killed"
            for name in ("log.txt", "log.ndjson"):
                with (after / name).open("ab") as file:
                    file.write(b"half of a fr")
                    if how == "files lost":
                        file.truncate(max(file.tell() - 100, 0))
            if how == "checkpoint lost":
                (after / "log.checkpoint").write_bytes(bytes(512))
            log.close()
            folder, log = after, JobLog(after, limit=10**9, resumable=True)
    log.close()
    for name in ("log.txt", "log.ndjson", "metrics.ndjson"):
        assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def take(log: JobLog, frame: bytes, at: datetime, number: int) -> None:
    """Take a frame as the reader of frames does: an empty one asks for the line that has not ended."""
    if frame:
        log.write(frame, at, number)
    else:
        log.show_line(at, number)
