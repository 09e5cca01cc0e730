"""The entity tags that stores give files."""

from __future__ import annotations

from functools import partial
from hashlib import new
from io import BytesIO

import pytest

from airflow_training.client.etag import matches

md5 = partial(new, "md5", usedforsecurity=False)

PART = 300_000
CONTENT = bytes(range(256)) * 3_000


def tag_of_parts(content: bytes) -> str:
    parts = [md5(content[begin : begin + PART]).digest() for begin in range(0, len(content), PART)]
    return f"{md5(b''.join(parts)).hexdigest()}-{len(parts)}"


@pytest.mark.parametrize("content", [b"", b"1,2,3", CONTENT[:PART], CONTENT[: 2 * PART], CONTENT])
def test_the_tag_of_a_file_is_known_in_both_of_its_kinds(content: bytes) -> None:
    assert matches(md5(content).hexdigest(), BytesIO(content), PART)
    assert not content or matches(tag_of_parts(content), BytesIO(content), PART)


@pytest.mark.parametrize("changed", [CONTENT[:-1] + b"?", b"?" + CONTENT[1:], CONTENT[:-1], CONTENT + b"?"])
def test_a_changed_file_has_another_tag(changed: bytes) -> None:
    assert not matches(md5(CONTENT).hexdigest(), BytesIO(changed), PART)
    assert not matches(tag_of_parts(CONTENT), BytesIO(changed), PART)


@pytest.mark.parametrize("tag", ["", "-", "-1", "d41d8cd98f00b204e9800998ecf8427e-0"])
def test_what_is_no_checksum_is_no_tag_of_a_file(tag: str) -> None:
    assert not matches(tag, BytesIO(CONTENT), PART)
