"""A log in pieces: every line once, whole, in order."""

from __future__ import annotations

from datetime import datetime, timezone

from hypothesis import given
from hypothesis import strategies as st

from airflow_training.jobs.log import LogDecoder, LogRecord

TIME = datetime(2026, 11, 23, 10, 51, 5, 123456, tzinfo=timezone.utc)
lines = st.lists(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"])), max_size=8)


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
