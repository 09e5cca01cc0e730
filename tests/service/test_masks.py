"""What a log must not show is not shown, however it is written and wherever its pieces end."""

from __future__ import annotations

import json
import shlex
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_training.service.runners.ray.frames import FrameReader, FrameWriter
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.secret_masks import Masks

SECRETS = st.lists(st.text("ab '\"\\\nü$", min_size=1, max_size=12), min_size=1, max_size=4)
END = "\0"
"""A character that is in no secret: nothing before it is held back."""
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n"


@given(secrets=SECRETS, text=st.text("ab '\"\\\nü$x", max_size=60), cuts=st.lists(st.integers(0, 80), max_size=8))
@example(secrets=["aabb", "bba"], text="aabba", cuts=[1, 2, 3, 4])
@example(secrets=["aabbaab", "bba"], text="aabba x", cuts=[5])
def test_pieces_are_masked_as_the_whole_is(secrets: list[str], text: str, cuts: list[int]) -> None:
    whole = f"{text}{END}".encode()
    ends = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    masks = Masks(secrets)

    shown = b"".join(masks.take(whole[begin:end]) for begin, end in pairwise(ends))

    assert shown.decode() == Masks(secrets).mask(text) + END
    assert masks.rest() == b""


@given(secret=st.text("ab '\"\\\nü$", min_size=1).filter(str.strip))
def test_a_secret_is_masked_however_it_is_quoted(secret: str) -> None:
    masks, secret = Masks([secret]), secret.strip()

    as_json = json.dumps(secret), json.dumps(secret, ensure_ascii=False)
    in_a_shell = secret.replace("'", "'\\''")
    for written in (secret, in_a_shell, *(text[1:-1] for text in (*as_json, repr(secret)))):
        assert masks.mask(f"<{written}>") == "<***>"
    assert secret not in masks.mask(shlex.join(["python3", "train.py", f"--key={secret}", "--epochs=5"]))


@given(st.text())
def test_without_secrets_nothing_changes(text: str) -> None:
    masks = Masks()

    assert masks.mask(text) == text
    assert masks.take(text.encode()) == text.encode()


def test_a_secret_of_several_lines_is_masked_as_a_whole_and_line_by_line() -> None:
    assert Masks([KEY]).mask(f"key: {KEY}!") == "key: ***\n!"
    assert Masks([KEY]).mask("1: MIIEvQIBADANBg\n2: kqhkiG9w0BAQEF") == "1: ***\n2: ***"
    assert Masks(['{\n  "key": "s3cr3t"\n}']).mask("a = {\n}\n") == "a = {\n}\n", "a brace is no secret"


def test_no_line_is_held_back_for_a_secret_that_begins_with_a_line_feed() -> None:
    assert Masks(["\ns3cr3t\n"]).take(b"epoch 1\n") == b"epoch 1\n"


def test_the_beginning_of_a_secret_that_was_cut_off_is_not_shown() -> None:
    for written, shown in ((b"ends with s3c", b"ends with s3c"), (b"ends with s3cr3", b"ends with ***")):
        masks = Masks(["s3cr3t"])
        assert masks.take(written) + masks.rest() == shown


@pytest.mark.parametrize("cut", range(1, 40))
def test_neither_file_of_a_log_shows_a_secret_wherever_the_output_is_cut(tmp_path: Path, cut: int) -> None:
    output = b"user and s3cr3t\n50% s3cr3t\rs3cr3t done\nends with s3"
    log = JobLog(tmp_path, limit=10**9, masks=Masks(["s3cr3t"]))

    log.write(output[:cut])
    log.show_line()
    log.write(output[cut:])
    log.emit("Running: train --key=s3cr3t --epochs=5")
    log.close()

    text = (tmp_path / "log.txt").read_bytes().decode().replace("\r", " ")
    records = [json.loads(record) for record in (tmp_path / "log.ndjson").read_bytes().splitlines()]
    assert text.splitlines() == [
        "user and ***",
        "50% *** *** done",
        "ends with s3",
        "[service] Running: train --key=*** --epochs=5",
    ]
    assert [record["line"] for record in records if "unended" not in record] == [
        line.removeprefix("50% *** ") for line in text.splitlines()
    ]
    assert all("s3" not in record["line"] for record in records if "unended" in record), "no half of a secret"


def test_what_is_held_back_counts_for_the_limit_of_a_log(tmp_path: Path) -> None:
    log = JobLog(tmp_path, limit=1, masks=Masks(["s3cr3t"]))

    log.write(b"over the limit\n")
    for _ in range(3):
        log.write(b"s3c")
    log.close()

    assert (tmp_path / "log.txt").read_text().count("has reached its limit") == 1
    assert log.dropped == 9


def test_the_frames_that_ray_shows_have_no_secret_and_arrive_in_order(tmp_path: Path) -> None:
    lines: list[str] = []
    writer = FrameWriter(lines.append, 1000, Masks(["s3cr3t"]))
    log = JobLog(tmp_path, limit=1000)

    writer.emit("Installing for s3cr3t")
    writer.write(b"key s3c")
    writer.show_line()
    writer.write(b"r3t, s3c")
    writer.event(ended={"status": 0})
    FrameReader(log, lambda _: None).write("".join(lines).encode())
    log.close()

    assert "s3cr3t" not in "".join(lines)
    assert [json.loads(line)["frame"] for line in lines] == list(range(len(lines)))
    assert "ended" in lines[-1]
    assert (tmp_path / "log.txt").read_bytes() == b"[service] Installing for ***\nkey ***, s3c"
    assert '"line": "key ", "unended": true' in (tmp_path / "log.ndjson").read_text()
