"""The parameters of a training as a table has them: a name and a text each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from airflow.sdk._shared.secrets_masker import redact

from airflow_training.exceptions import InvalidParameters
from airflow_training.jobs.parameters import overridden

# A page shows no more, and no longer ones.
_MOST = 300
_LONGEST = 2000
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
    told = {"resources" if name == "job_resources" else name: value for name, value in told.items()}
    # One that cannot be read, since Airflow has cut it for instance, is shown as it is.
    with suppress(InvalidParameters):
        told = overridden({name: value for name, value in told.items() if name != "config"}, told.get("config"))
    return list(_entries("", {name: redact(_read(value), name) for name, value in told.items()}))[:_MOST]


def _read(value: Any) -> Any:
    """An object that was given as a text, as templates deliver it."""
    try:
        read = json.loads(value) if isinstance(value, str) and value.startswith(("{", "[")) else value
    except (ValueError, RecursionError):
        return value
    return {entry["name"]: entry.get("value") for entry in read} if _are_variables(read) else read


def _are_variables(value: Any) -> bool:
    entries = value if isinstance(value, list) else []
    return bool(entries) and all(isinstance(e, dict) and isinstance(e.get("name"), str) for e in entries)


def _entries(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _entries(f"{prefix}.{name}" if prefix else str(name), inner)
    elif value not in (None, "", [], ()):
        yield prefix, _text(value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
