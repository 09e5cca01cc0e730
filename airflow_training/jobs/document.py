"""A job description as it was written: YAML or JSON, by anybody."""

from __future__ import annotations

import json
from typing import Any

import yaml
from pydantic import ValidationError

from airflow_training.jobs.description import Execution, JobDescription, Resources, Variable


class _Loader(yaml.CSafeLoader):
    """Reads a date as the text that it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}

# No description nests deeper than this; the parser's stack does not bear any depth.
_DEEPEST = 20

_FIELDS = frozenset(
    name
    for model in (JobDescription, Execution, Resources, Variable)
    for field, info in model.model_fields.items()
    for name in (field, info.alias)
)


def read_document(content: bytes) -> Any:
    """Read YAML or JSON.

    Raises:
        ValueError: It is neither; says why, in half a sentence.

    >>> read_document(b"job: {since: 2026-11-26}")
    {'job': {'since': '2026-11-26'}}
    """
    try:
        # Nearly all JSON is YAML, but not tabs between tokens, nor characters written as surrogate pairs.
        return json.loads(content)
    except (ValueError, RecursionError):
        pass
    try:
        _check_structure(content)
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - it makes less than the safe one
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = f"{error.problem or error.context}{where}"
    except (yaml.YAMLError, ValueError) as error:
        # Scalars that look like a number and are none raise ValueError.
        reason = str(error).split("\n", maxsplit=1)[0]
    raise ValueError(f"is neither YAML nor JSON: {reason}")


def _check_structure(content: bytes) -> None:
    """Refuse what a description never has: references, which can multiply without end, tags, and depth."""
    depth = 0
    for event in yaml.parse(content, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"references are not taken (*{event.anchor})")
        if tag := getattr(event, "tag", None):
            raise ValueError(f"tags are not taken ({tag})")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def mistakes_in(error: ValidationError, around: frozenset[str] = frozenset()) -> list[str]:
    """Tell what is wrong with a description, one entry for each place: where, and what is wrong there.

    Args:
        error: What pydantic found.
        around: Names of fields of the document that the description is a part of.
    """
    names = _FIELDS | around
    mistakes: dict[str, str] = {}
    for mistake in error.errors(include_url=False, include_context=False, include_input=False):
        # Beside the place, pydantic names the branch of a union that it tried.
        unknown = mistake["type"] == "extra_forbidden"
        parts = [part for part in mistake["loc"] if unknown or isinstance(part, int) or part in names]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
        said = "is unknown" if unknown else mistake["msg"].removeprefix("Value error, ")
        mistakes.setdefault(place or "the document", said[0].lower() + said[1:])
    return [f"{place}: {said}" for place, said in mistakes.items()]
