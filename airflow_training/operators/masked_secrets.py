"""The secrets in a job's description that Airflow masks, so that the service masks them in the job's log too.

The worker knows the secrets that its templates have read; the triggerer does not. The worker therefore sends them with
the description: the service has them anyway, as variables of the job. The arguments of a trigger are not secret.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

# Airflow has no public way to ask what it masks.
from airflow.sdk._shared.secrets_masker import _secrets_masker, should_hide_value_for_key
from airflow.sdk.log import mask_secret

from airflow_training.api.parameters import TrainingParameters, arguments, variables

# Characters. A result and a claim are small values in Airflow's database.
_LONGEST = 1_000


def mask_given(values: Mapping[str, Any]) -> None:
    """Make Airflow mask the values of variables and options with a name such as `API_KEY`, in any form of them.

    By default it masks them in mappings only, and in rendered fields but not in logs. It does not mask numbers. Text
    that is a number is not masked here either: the value of a rendered `MAX_TOKENS` may be in any line of metrics.
    """
    given: list[tuple[Any, Any]] = []
    for parameter in ("env", "environment"):
        with suppress(ValueError):  # an invalid value is reported later
            entries = variables(values.get(parameter))
            if isinstance(entries, list):
                given += [(each.get("name"), each.get("value")) for each in entries if isinstance(each, Mapping)]
    with suppress(ValueError):
        given += _options(arguments(values.get("args")))
    for name, value in given:
        if _is_secret(name, value) and not _is_number(str(value)):
            mask_secret(value, name)


def masks(parameters: TrainingParameters) -> list[str]:
    """List the secrets in the description of a job: every text in it that Airflow masks."""
    given = (*parameters.env, *parameters.environment)
    words = (*parameters.launcher, *parameters.args)
    texts = (*(variable.text for variable in given), *words, parameters.script, parameters.requirements)
    patterns = _secrets_masker().patterns
    found = {match[0] for pattern in patterns for text in texts if (match := re.search(pattern, text))}
    # A secret that is too short, too common or a number must not be masked wherever it occurs.
    for variable in given:
        if _is_secret(variable.name, variable.value) and variable.text not in found:
            found |= {f"{variable.argument}={variable.text}", f"{variable.name}={variable.text}"}
    for name, value in _options(parameters.args):
        if _is_secret(name, value) and value not in found:
            found |= {f"{name}={value}", f"{name} {value}"}
    return sorted(found)


def unmasked(parameters: TrainingParameters, args: Any) -> dict[str, Any]:
    """List the variables and arguments of a job by their names, without secrets and long texts.

    Args:
        parameters: The parameters.
        args: The arguments as the task has them: a mapping keeps its names.
    """
    found: dict[str, Any] = {
        "env": _unmasked({variable.name: variable.value for variable in parameters.env}),
        "environment": _unmasked({variable.name: variable.value for variable in parameters.environment}),
        "args": _unmasked(args) if isinstance(args, Mapping) else _unmasked_words(parameters.args),
    }
    # Airflow's database may refuse NaN and Infinity, which become texts.
    shown: dict[str, Any] = json.loads(json.dumps(found), parse_constant=str)
    return {name: values for name, values in shown.items() if values}


def _options(words: Any) -> list[tuple[str, str]]:
    """The options among the words of a command line, each with its value: `--name=value` or `--name value`."""
    if not isinstance(words, (list, tuple)):
        return []
    found = []
    for word, following in pairwise([*words, ""]):
        name, assigned, value = word.partition("=")
        if name.startswith("-"):
            found.append((name, value if assigned else following))
    return found


def _unmasked(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        # A number is not masked, whatever its name: `MAX_TOKENS`.
        if (isinstance(value, (int, float)) or not _has_secret_name(name)) and _may_be_shown(value)
    }


def _unmasked_words(words: Sequence[str]) -> list[str]:
    secrets = {word for option in _options(words) if _has_secret_name(option[0]) for word in option}
    return [
        word for word in words if word not in secrets and word.partition("=")[0] not in secrets and _may_be_shown(word)
    ]


def _may_be_shown(value: Any) -> bool:
    text = str(value)
    return len(text) <= _LONGEST and not any(re.search(pattern, text) for pattern in _secrets_masker().patterns)


def _has_secret_name(name: Any) -> bool:
    # Options have dashes: `--api-key`.
    return isinstance(name, str) and should_hide_value_for_key(name.strip("-").replace("-", "_"))


def _is_secret(name: Any, value: Any) -> bool:
    return isinstance(value, str) and value != "" and _has_secret_name(name)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
