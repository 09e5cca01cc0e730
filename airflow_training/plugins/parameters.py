"""The parameters of a training as a table has them: a name and a text each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

# A page shows no more, and no longer ones.
_MOST = 300
_LONGEST = 2000
# What a function was called with is in `env` as well.
_TOLD_ELSEWHERE = frozenset({"op_args", "op_kwargs", "templates_dict"})


def flat(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Make a table of the rendered fields of a task, in their order; empty ones are left out.

    >>> flat({"image": "python:3", "env": {"EPOCHS": 8}, "data": None})
    [('image', 'python:3'), ('env.EPOCHS', '8')]
    """
    told = {name: value for name, value in fields.items() if name not in _TOLD_ELSEWHERE}
    return list(_entries("", told))[:_MOST]


def _entries(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            # The operator's attribute has another name than its argument.
            known_as = "resources" if not prefix and name == "job_resources" else name
            yield from _entries(f"{prefix}.{known_as}" if prefix else str(known_as), inner)
    elif value not in (None, "", [], ()):
        yield prefix, _text(value)


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
