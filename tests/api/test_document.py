"""What is read out of a job description is what was written there."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from airflow_training.api.description import JobDescription, read_document, validation_errors


def env(value: str, **changes: str) -> Any:
    execution = ", ".join(
        f"{name}: {given}" for name, given in ({"command": "a", "completionTime": "60"} | changes).items()
    )
    return read_document(f"job: {{name: a, env: [{{name: V, value: {value}}}], execution: {{{execution}}}}}".encode())


SCALARS = [
    *("3.10", "2.0", "1e3", ".inf", "1_000", "0x1F", "0o17", "0b1", "-0", "+5"),
    *("no", "No", "off", "y", "True", "NO", "NULL", "Null"),
    *("01067", "010", "22:30:00", "1:30", "2019-01-31", "=", "9" * 30),
]


@pytest.mark.parametrize("written", SCALARS)
def test_a_value_without_quotes_arrives_as_it_was_written(written: str) -> None:
    assert JobDescription.from_wire(env(written)).env[0].text == written


@pytest.mark.parametrize("written", ["3.10", "1E3", "-0", "0.00001", "12345678901234567890123"])
def test_a_number_of_json_arrives_as_it_was_written(written: str) -> None:
    env = f'{{"name": "a", "env": [{{"name": "V", "value": {written}}}]'
    document = f'{env}, "execution": {{"command": "a", "completionTime": 60}}}}'

    assert JobDescription.from_wire(read_document(document.encode())).env[0].text == written


@pytest.mark.parametrize(
    ("written", "read"), [("10000", 10000), ("-5", -5), ("true", True), ("false", False), ("~", None)]
)
def test_whole_numbers_and_booleans_are_what_they_were_on_the_wire(written: str, read: Any) -> None:
    value = read_document(f"a: {written}".encode())["a"]

    assert (type(value), value) == (type(read), read)


def test_numbers_keep_their_meaning_where_numbers_are_wanted() -> None:
    found = JobDescription.from_wire(env("1", completionTime="010", resources="{cpus: 2.0, memory: 0512}")).execution

    assert found.completion_time == "010"
    assert found.resources
    assert (found.resources.cpus, found.resources.memory) == (2, 512)


@pytest.mark.parametrize(
    ("field", "written", "wanted"),
    [("name", "1067", "'1067'"), ("image", "true", "'true'"), ("image", "3", "'3'")],
)
def test_a_number_in_place_of_a_text_is_a_mistake_that_asks_for_quotes(field: str, written: str, wanted: str) -> None:
    document = {"name": "a", "execution": {"command": "a", "completionTime": 60}}
    place = document if field == "name" else document["execution"]
    place[field] = read_document(f"a: {written}".encode())["a"]  # type: ignore[index]

    with pytest.raises(ValidationError) as raised:
        JobDescription.from_wire(document)

    (mistake,) = validation_errors(raised.value)
    assert mistake.endswith(f"{field}: input should be a valid string: write it in quotes, {wanted}")


@pytest.mark.parametrize(
    "scalar",
    [b"1" + b":59" * 160_000, b"1" + b":59" * 160_000 + b".5", b"9" * 1_000_000, b"1." + b"0" * 1_000_000],
    ids=["base 60", "base 60 with a fraction", "whole", "fraction"],
)
@pytest.mark.parametrize("document", ["a: %s", '{"a": %s}'], ids=["yaml", "json"])
def test_a_number_without_end_is_refused_and_not_computed(document: str, scalar: bytes) -> None:
    with pytest.raises(ValueError, match="a number has more than 1000 characters"):
        read_document(document.encode() % scalar)

    assert read_document(b"a: '" + scalar + b"'") == {"a": scalar.decode()}


def test_a_document_of_many_parts_is_refused_before_it_is_built() -> None:
    with pytest.raises(ValueError, match="has more than 50000 parts"):
        read_document(b"a: [" + b"x," * 100_000 + b"x]")


printable = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=20)


@given(st.dictionaries(printable, printable | st.integers(-(10**17), 10**17) | st.booleans() | st.none(), max_size=5))
def test_what_json_and_yaml_write_is_what_is_read(document: dict[str, Any]) -> None:
    assert read_document(json.dumps(document).encode()) == document
    assert read_document(yaml.safe_dump(document, allow_unicode=True).encode()) == document


@given(st.text("0123456789.:_-+exobnyYNtrufalsTFnuN~ ", max_size=12))
def test_a_plain_scalar_is_its_own_text_or_is_written_the_same_way_again(written: str) -> None:
    try:
        text = yaml.load(f"a: {written}", Loader=yaml.BaseLoader)["a"]  # noqa: S506 - it makes texts only
    except (yaml.YAMLError, TypeError):
        return

    value = read_document(f"a: {written}".encode())["a"]

    if isinstance(text, str):
        assert (
            value == text
            or text == ("" if value is None else json.dumps(value))
            or (text, value) == ("~", None)
            or (text, value) == ("null", None)
        )
