"""A log in pieces: every line once, whole, in order."""

from __future__ import annotations

import tracemalloc
from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_training.api.log import LONGEST_LINE, LogDecoder, LogRecord

TIME = datetime(2026, 11, 23, 10, 51, 5, 123456, tzinfo=timezone.utc)
lines = st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])), max_size=8)


def pieces(content: bytes, sizes: list[int]) -> list[bytes]:
    """Cut a log where a network might."""
    cut, start = [], 0
    for size in sizes:
        cut.append(content[start : start + size])
        start += size
    return [*cut, content[start:]]


@given(lines, st.lists(st.integers(min_value=0, max_value=40), max_size=20))
def test_plain_text_arrives_line_by_line_however_it_is_cut(texts: list[str], sizes: list[int]) -> None:
    decoder = LogDecoder(ndjson=False)
    content = "".join(f"{text}\n" for text in texts).encode()

    records = [record for piece in pieces(content, sizes) for record in decoder.feed(piece)]

    assert [record.line for record in records] == texts
    assert decoder.flush() == []


@given(lines, st.lists(st.integers(min_value=0, max_value=60), max_size=20))
def test_records_keep_their_time_however_they_are_cut(texts: list[str], sizes: list[int]) -> None:
    decoder = LogDecoder(ndjson=True)
    written = [LogRecord(text, TIME) for text in texts]

    records = [
        record
        for piece in pieces(b"".join(record.to_ndjson() for record in written), sizes)
        for record in decoder.feed(piece)
    ]

    assert records == written


def test_half_a_line_is_kept_until_the_log_ends() -> None:
    decoder = LogDecoder(ndjson=False)

    assert decoder.feed(b"one\ntw") == [LogRecord("one")]
    assert decoder.pending == 2
    assert decoder.flush() == [LogRecord("tw")]
    assert decoder.pending == 0


def test_bytes_that_are_no_text_are_replaced() -> None:
    assert LogDecoder(ndjson=False).feed(b"\xff\xfeok\n") == [LogRecord("\ufffd\ufffdok")]


def test_a_broken_record_is_shown_as_it_is() -> None:
    decoder = LogDecoder(ndjson=True)

    assert decoder.feed(b'<html>\n{"line": 3}\n[]\n') == [
        LogRecord("<html>"),
        LogRecord('{"line": 3}'),
        LogRecord("[]"),
    ]


@pytest.mark.parametrize("ndjson", [False, True])
@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("\r10 %\r 50 %\r100 %", "100 %"),
        ("10 %\r100 %\r", "100 %"),
        ("a line of Windows\r", "a line of Windows"),
        ("\x1b[1;31mred\x1b[0m and \x1b]0;title\x07plain", "red and plain"),
        ("\x00\x07bell\ttab\x9b", "\ufffd\ufffdbell\ttab\ufffd"),
        ("", ""),
    ],
)
def test_a_line_is_shown_as_a_terminal_would_leave_it(ndjson: bool, written: str, shown: str) -> None:
    content = LogRecord(written, TIME).to_ndjson() if ndjson else f"{written}\n".encode()
    for size in (1, 3, len(content)):
        decoder = LogDecoder(ndjson=ndjson)
        chunks = [content[start : start + size] for start in range(0, len(content), size)]
        assert [record.line for chunk in chunks for record in decoder.feed(chunk)] == [shown]


def test_a_long_line_is_cut_and_says_how_much_is_missing() -> None:
    decoder = LogDecoder(ndjson=False)
    for _ in range(160):
        assert decoder.feed("é".encode() * 32 * 1024) == []
    assert decoder.pending == 160 * 64 * 1024

    (record,) = decoder.feed(b"\n")

    missing = 160 * 64 * 1024 - LONGEST_LINE
    assert record.line == "é" * (LONGEST_LINE // 2) + f" … [{missing:,} more bytes of this line omitted]"
    assert decoder.pending == 0


def test_a_long_progress_bar_is_not_cut() -> None:
    decoder = LogDecoder(ndjson=False)

    records = decoder.feed(b"".join(b"\r%d %%" % number for number in range(100_000)) + b"\n")

    assert records == [LogRecord("99999 %")]


def test_a_line_of_several_records_is_one_line_with_the_time_of_its_beginning() -> None:
    decoder = LogDecoder(ndjson=True)
    pieces = [LogRecord("a", TIME, continues=True), LogRecord("b", TIME.replace(hour=11), continues=True)]

    assert [decoder.feed(piece.to_ndjson()) for piece in pieces] == [[], []]
    assert decoder.pending == sum(len(piece.to_ndjson()) for piece in pieces)
    assert decoder.feed(LogRecord("c", TIME.replace(hour=12)).to_ndjson()) == [LogRecord("abc", TIME)]


def test_memory_stays_small_where_no_line_and_no_record_ends() -> None:
    for ndjson in (False, True):
        decoder = LogDecoder(ndjson=ndjson)
        tracemalloc.start()
        for _ in range(64):
            decoder.feed(b"x" * 1024 * 1024)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 8 * 1024 * 1024
        assert decoder.flush()[0].line.startswith("xxx")


def test_half_a_character_from_a_service_can_be_written_to_a_file() -> None:
    (record,) = LogDecoder(ndjson=True).feed(b'{"time": null, "line": "\\ud800"}\n')

    assert record.line.encode() == b"?"
