"""How a reply is divided among the logs that have grown."""

from __future__ import annotations

from pathlib import Path

from airflow_training.service.http.watch import GrownLog, fair_shares
from tests.service.watching import KILOBYTE


def grown(folder: Path, name: str, content: bytes, *, ended: bool = False) -> GrownLog:
    (folder / name).write_bytes(content)
    return GrownLog(str(folder / name), 0, len(content), ended)


def lengths(*logs: GrownLog) -> list[int]:
    shares = fair_shares(logs)
    return [len(shares.get(log.file, b"")) for log in logs]


def test_small_logs_are_sent_whole_and_big_ones_share_the_rest(tmp_path: Path) -> None:
    small = [grown(tmp_path, f"small{number}", b"x" * 99 + b"\n") for number in range(100)]
    big = [grown(tmp_path, f"big{number}", (b"x" * 99 + b"\n") * 5000) for number in range(10)]
    sent = lengths(*big[:5], *small, *big[5:])
    assert sent[5:105] == [100] * 100
    shares = sent[:5] + sent[105:]
    assert max(shares) == min(shares)
    assert 250 * KILOBYTE < sum(sent) <= 256 * KILOBYTE
    assert lengths(big[0]) == [64 * KILOBYTE // 100 * 100]


def test_a_long_record_is_sent_whole_where_it_fits_or_comes_first(tmp_path: Path) -> None:
    longest = grown(tmp_path, "longest", b"x" * (KILOBYTE * KILOBYTE - 1) + b"\n" + b"y\n")
    long = grown(tmp_path, "long", b"x" * (100 * KILOBYTE - 1) + b"\n" + b"y\n")
    short = grown(tmp_path, "short", b"short\n")
    assert lengths(longest, short) == [KILOBYTE * KILOBYTE, 0]
    assert lengths(short, longest) == [6, 0]
    assert lengths(short, long, longest) == [6, 100 * KILOBYTE, 0]
    too_long = grown(tmp_path, "too long", b"x" * (KILOBYTE * KILOBYTE) + b"\n")
    assert lengths(too_long, short) == [0, 6]


def test_where_a_record_of_each_is_too_much_the_first_have_theirs(tmp_path: Path) -> None:
    logs = [grown(tmp_path, str(number), (b"x" * 199 + b"\n") * 9) for number in range(2000)]
    sent = lengths(*logs)
    served = 256 * KILOBYTE // 200
    assert sent == [200] * served + [0] * (2000 - served)
    assert lengths(*logs[served:])[:600] == [200] * 600


def test_a_record_that_is_being_written_is_sent_when_it_is_whole_or_the_job_has_ended(tmp_path: Path) -> None:
    assert lengths(grown(tmp_path, "log", b"half of a rec")) == [0]
    assert lengths(grown(tmp_path, "log", b"one\nhalf of a rec")) == [4]
    assert lengths(grown(tmp_path, "log", b"one\nhalf of a rec", ended=True)) == [17]
    assert lengths(grown(tmp_path, "log", b"half of a rec", ended=True)) == [13]


def test_a_log_that_was_removed_just_now_is_no_news(tmp_path: Path) -> None:
    log = grown(tmp_path, "log", b"one\n")
    (tmp_path / "log").unlink()
    assert lengths(log) == [0]
