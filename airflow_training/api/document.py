"""A job description as it was written: YAML or JSON, by anybody."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from pydantic import ValidationError

from airflow_training.api.description import Execution, JobDescription, Resources, Variable


class _Loader(yaml.CSafeLoader):
    """Takes for a number or a boolean only what would be written the same way again.

    All else that stands without quotes is text: YAML 1.1 reads `3.10`, `no`, `010` and `22:30:00` as 3.1, false, 8 and
    81000, and takes seconds of a processor for a long number of base 60. No field needs a fraction as a number.
    """


_Loader.yaml_implicit_resolvers = {}
# 18 digits: what fits into 64 bits.
_WHOLE_NUMBER = re.compile(r"(0|-?[1-9][0-9]{0,17})\Z")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE_NUMBER, list("-0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|false)\Z"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|)\Z"), ["~", "n", ""])


# What YAML 1.1 may take for a number, and the characters that nobody needs more of in one.
_LIKE_A_NUMBER = re.compile(r"[-+0-9.:_eE]+")
_LONGEST_NUMBER = 1_000


# No description nests deeper than this; the parser's stack does not bear any depth.
_DEEPEST = 20
# Nor has one more parts, of which each takes about ten microseconds: a thousand variables are six thousand.
_MOST_PARTS = 50_000

_FIELDS = frozenset(
    name
    for model in (JobDescription, Execution, Resources, Variable)
    for field, info in model.model_fields.items()
    for name in (field, info.alias)
)


def read_document(content: bytes) -> Any:
    """Read YAML or JSON; what looks like a number, a time or a boolean is kept as it was written.

    Raises:
        ValueError: It is neither; says why, in half a sentence.

    >>> read_document(b"job: {since: 2026-11-26, python: 3.10, zip: 01067, epochs: 5}")
    {'job': {'since': '2026-11-26', 'python': '3.10', 'zip': '01067', 'epochs': 5}}
    """
    try:
        # Nearly all JSON is YAML, but not tabs between tokens, nor characters written as surrogate pairs.
        return json.loads(content, parse_int=_number, parse_float=_number, parse_constant=str)
    except (ValueError, RecursionError):
        pass
    try:
        _check_structure(content)
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - it makes less than the safe one
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = f"{error.problem or error.context}{where}"
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
    raise ValueError(f"is neither YAML nor JSON: {reason}")


def _check_structure(content: bytes) -> None:
    """Refuse what a description never has: references, which multiply without end, tags, depth, size, long numbers."""
    depth = 0
    for number, event in enumerate(yaml.parse(content, Loader=yaml.CSafeLoader)):
        if number > _MOST_PARTS:
            raise ValueError(f"it has more than {_MOST_PARTS} parts")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"references are not taken (*{event.anchor})")
        if isinstance(event, yaml.ScalarEvent) and not event.style:
            _check_length(event.value)
        if tag := getattr(event, "tag", None):
            raise ValueError(f"tags are not taken ({tag})")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _number(text: str) -> int | str:
    _check_length(text)
    return int(text) if _WHOLE_NUMBER.match(text) else text


def _check_length(scalar: str) -> None:
    if len(scalar) > _LONGEST_NUMBER and _LIKE_A_NUMBER.fullmatch(scalar):
        raise ValueError(f"a number has more than {_LONGEST_NUMBER} characters")


def mistakes_in(error: ValidationError, around: frozenset[str] = frozenset()) -> list[str]:
    """Tell what is wrong with a description, one entry for each place: where, and what is wrong there.

    Args:
        error: What pydantic found.
        around: Names of fields of the document that the description is a part of.
    """
    names = _FIELDS | around
    mistakes: dict[str, str] = {}
    for mistake in error.errors(include_url=False, include_context=False):
        # Beside the place, pydantic names the branch of a union that it tried.
        unknown = mistake["type"] == "extra_forbidden"
        parts = [part for part in mistake["loc"] if unknown or isinstance(part, int) or part in names]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
        said = "is unknown" if unknown else mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "string_type" and isinstance(mistake["input"], (bool, int)):
            said += f": write it in quotes, '{json.dumps(mistake['input'])}'"
        mistakes.setdefault(place or "the document", said[0].lower() + said[1:])
    return [f"{place}: {said}" for place, said in mistakes.items()]
