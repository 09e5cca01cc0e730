"""The secrets in a job's description that Airflow masks, so that the service masks them in the job's log too.

The worker knows the secrets that its templates have read; the triggerer does not. The worker therefore sends them with
the description: the service has them anyway, as variables of the job. The arguments of a trigger are not secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

# Airflow has no public way to ask what it masks.
from airflow.sdk._shared.secrets_masker import _secrets_masker, should_hide_value_for_key
from airflow.sdk.log import mask_secret

from airflow_training.api.parameters import TrainingParameters, variables


def mask_variables(env: Any) -> None:
    """Make Airflow mask the values of variables with a name such as `API_KEY`, in any form of `env`.

    By default it masks them in mappings only, and in rendered fields but not in logs. It does not mask numbers. Text
    that is a number is not masked here either: the value of a rendered `MAX_TOKENS` may be in any line of metrics.
    """
    entries: Any = []
    with suppress(ValueError):  # an invalid `env` is reported later
        entries = variables(env)
    for entry in entries if isinstance(entries, list) else []:
        name, value = (entry.get("name"), entry.get("value")) if isinstance(entry, Mapping) else (None, None)
        if _is_secret(name, value) and not _is_number(str(value)):
            mask_secret(value, name)


def masks(parameters: TrainingParameters) -> list[str]:
    """List the secrets in the description of a job: every text in it that Airflow masks."""
    texts = (*(variable.text for variable in parameters.env), parameters.script, parameters.requirements)
    patterns = _secrets_masker().patterns
    found = {match[0] for pattern in patterns for text in texts if (match := re.search(pattern, text))}
    for variable in parameters.env:
        if _is_secret(variable.name, variable.value) and variable.text not in found:
            # Too short, too common or a number: it must not be masked wherever it occurs.
            found |= {f"{variable.argument}={variable.text}", f"{variable.name}={variable.text}"}
    return sorted(found)


def _is_secret(name: Any, value: Any) -> bool:
    return isinstance(value, str) and value != "" and should_hide_value_for_key(name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
