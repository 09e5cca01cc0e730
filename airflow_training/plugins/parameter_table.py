"""The parameters of a training as a table has them: a name and a text each."""

from __future__ import annotations

import json
from ast import literal_eval
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from airflow.sdk._shared.secrets_masker import redact

from airflow_training.api.parameters import overridden
from airflow_training.exceptions import InvalidParameters
from airflow_training.plugins.texts import sendable

# A page shows no more, and no longer ones.
_MOST = 300
_LONGEST = 2000
_DEEPEST = 10
# What a function was called with is in `env` as well.
_TOLD_ELSEWHERE = ("op_args", "op_kwargs", "templates_dict")


def flat(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Make a table of the rendered fields of a task, those that the task's config overrides overridden.

    Args:
        fields: As Airflow keeps them, masked. What is read out of a text here is masked by its names as well.

    >>> flat({"image": "python:3", "env": '{"EPOCHS": 8}', "data": None, "config": {"image": "python:3.13"}})
    [('image', 'python:3.13'), ('env.EPOCHS', '8')]
    """
    told = {name: value for name, value in fields.items() if name not in _TOLD_ELSEWHERE}
    # The operator's attribute has another name than its argument.
    told = {_argument(name): value for name, value in told.items()}
    # One that cannot be read, since Airflow has cut it for instance, is shown as it is.
    with suppress(InvalidParameters):
        told = overridden({name: value for name, value in told.items() if name != "config"}, told.get("config"))
    # Who overrides it may have taken the one name for the other.
    told = {_argument(name): value for name, value in told.items()}
    return list(islice(_entries("", told), _MOST))


def _argument(attribute: str) -> str:
    return "resources" if attribute == "job_resources" else attribute


def _read(value: Any) -> Any:
    """An object that was given as a text, as JSON or as Python writes it: templates deliver either."""
    read = value
    if isinstance(value, str) and value.lstrip().startswith(("{", "[")):
        for reader in (json.loads, literal_eval):
            with suppress(ValueError, SyntaxError, MemoryError, RecursionError):
                read = reader(value.strip())
                break
    return {entry["name"]: entry.get("value") for entry in read} if _are_variables(read) else read


def _are_variables(value: Any) -> bool:
    entries = value if isinstance(value, list) else []
    return bool(entries) and all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in entries)


def _entries(prefix: str, value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    if isinstance(value, list) and any(isinstance(_read(entry), (dict, list)) for entry in value):
        value = dict(enumerate(value))
    if depth > _DEEPEST:
        yield prefix, "…"
    elif isinstance(value, dict):
        for name, inner in value.items():
            # At each level: Airflow does not mask what lies deep.
            shown = redact(_read(inner), str(name))
            yield from _entries(sendable(f"{prefix}.{name}" if prefix else str(name)), shown, depth + 1)
    elif value not in (None, "", [], ()):
        yield prefix, _text(value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return sendable(text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…")
