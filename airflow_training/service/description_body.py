"""The body of a submit: a job description as YAML or JSON, from anybody."""

from __future__ import annotations

import json
from typing import Any

import yaml
from pydantic import ValidationError

from airflow_training.jobs.description import JobDescription
from airflow_training.service.errors import InvalidDescription


class _Loader(yaml.CSafeLoader):
    """Reads a date as the text that it is."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}

# No description nests deeper than this; the parser's stack does not bear any depth.
_DEEPEST = 20


def read_description(body: bytes) -> JobDescription:
    """Read a job description.

    Raises:
        InvalidDescription: With everything that is wrong with it.
    """
    try:
        description = JobDescription.from_wire(_document(body))
    except ValidationError as error:
        raise InvalidDescription(_in_words(error), status=422) from None
    if "\0" in description.execution.command:
        raise InvalidDescription("The job description has a NUL character in execution.command.", status=422)
    try:
        description.model_dump_json()
    except ValueError:
        # JSON can write one half of a surrogate pair; no file, no database and no process can hold it.
        raise InvalidDescription("The job description holds half a character (a surrogate).", status=422) from None
    return description


def _document(body: bytes) -> Any:
    try:
        # Nearly all JSON is YAML, but not tabs between tokens, nor characters written as surrogate pairs.
        return json.loads(body)
    except (ValueError, RecursionError):
        pass
    try:
        _check_structure(body)
        return yaml.load(body, Loader=_Loader)  # noqa: S506 - it makes less than the safe one
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = f"{error.problem or error.context}{where}"
    except (yaml.YAMLError, ValueError) as error:
        # Scalars that look like a number and are none raise ValueError.
        reason = str(error).split("\n", maxsplit=1)[0]
    raise InvalidDescription(f"The job description is neither YAML nor JSON: {reason}.", status=400)


def _check_structure(body: bytes) -> None:
    """Refuse what a description never has: references, which can multiply without end, tags, and depth."""
    depth = 0
    for event in yaml.parse(body, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"references are not taken (*{event.anchor})")
        if tag := getattr(event, "tag", None):
            raise ValueError(f"tags are not taken ({tag})")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")


def _in_words(error: ValidationError) -> str:
    """One sentence with all mistakes: where, and what is wrong there."""
    mistakes: dict[str, str] = {}
    for mistake in error.errors(include_url=False, include_context=False, include_input=False):
        # Beside the place, pydantic names the branch of a union that it tried.
        parts = [part for part in mistake["loc"] if isinstance(part, int) or part in _FIELDS]
        place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
        said = mistake["msg"].removeprefix("Value error, ")
        mistakes.setdefault(place or "the document", said[0].lower() + said[1:])
    listed = "; ".join(f"{place}: {said}" for place, said in mistakes.items())
    return f"The job description is not valid: {listed}."


_FIELDS = frozenset(
    {"name", "env", "value", "execution", "image", "command", "completionTime", "resources", "resourcePlanId"}
    | {"retries", "pythonMajorVersion", "cpus", "gpus", "memory"}
)
