"""How good a model is: the numbers that a training script tells, by printing them or in a file.

Three ways, none of which needs a library:

- a line of JSON with the key `metrics`: `{"metrics": {"accuracy": 0.86, "loss": 0.31}}`, and beside it `step` or
  `epoch`, which says where on their curves the values lie;
- the lines that Keras prints at the end of an epoch: `1018/1018 - 2s - 2ms/step - accuracy: 0.8623 - loss: 0.3021`;
  `Epoch 3/8` before them says which;
- the file `metrics.json` in the job folder: `{"accuracy": 0.86, "loss": 0.31}`.

Of a metric that is told several times, the last value counts, and if that is NaN or infinite none does; what the file
says counts more than what was printed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal, NamedTuple

METRICS_FILE = "metrics.json"

# What Airflow can show, and keep with each event of an asset.
_MOST = 100
_LONGEST_NAME = 100
# No float can hold whole numbers that are much greater, and no database NaN and the infinities.
_GREATEST = 1e300

# The last step of an epoch: `318/318 - 1s - 2ms/step - accuracy: 0.8623 - loss: 0.3021`, with a bar in place of a dash
# or with the times at the end, as versions of Keras have it.
_LAST_STEP = re.compile(r"\s*(\d+)/\1 .*\d[mun]?s/step")
_METRIC = re.compile(r" - ([\w./-]+): (\S+)")
_EPOCH = re.compile(r"\s*Epoch (\d{1,15})/\d+\s*")

_UNITS: tuple[Literal["step", "epoch"], ...] = ("step", "epoch")

MARKS = ('"metrics"', "s/step", "Epoch ")
"""A line that has none of these tells nothing of metrics, which is quickly seen of thousands of lines at once."""


class Told(NamedTuple):
    """What a line of a log tells of metrics.

    Attributes:
        metrics: The values by name: what is no finite number too.
        unit: What `step` counts; "value" where the line tells no step.
        step: Where on their curves the values lie; None where the line does not tell.
    """

    metrics: dict[str, float]
    unit: Literal["epoch", "step", "value"] = "value"
    step: float | None = None


def metrics_of_line(line: str) -> dict[str, float]:
    """Read the metrics that a line of a log tells; none, as most lines do, where it is an empty dictionary.

    >>> metrics_of_line('{"metrics": {"accuracy": 0.86}, "epoch": 3}')
    {'accuracy': 0.86}
    >>> metrics_of_line("318/318 ━━━━━━━━━━ 1s 2ms/step - accuracy: 0.8512 - val_loss: nan")
    {'accuracy': 0.8512, 'val_loss': nan}
    """
    return told_by_line(line).metrics


def told_by_line(line: str) -> Told:
    """Read the metrics that a line of a log tells, with their step where it stands in the same line.

    Where a line tells both `step` and `epoch`, the step counts: there are more of them.

    >>> told_by_line('{"metrics": {"accuracy": 0.86}, "epoch": 3}')
    Told(metrics={'accuracy': 0.86}, unit='epoch', step=3)
    """
    if '"metrics"' in line:
        document = _object(line)
        metrics = _numbers(document.get("metrics"))
        for unit in _UNITS:
            if is_finite(step := document.get(unit)):
                return Told(metrics, unit, step)
        return Told(metrics)
    if "s/step" in line and _LAST_STEP.match(line):
        return Told(_numbers({name: _number(text) for name, text in _METRIC.findall(line)}))
    return Told({})


def epoch_of_line(line: str) -> int | None:
    """Read which epoch Keras begins; None where the line is not about that.

    >>> epoch_of_line("Epoch 3/8")
    3
    """
    match = _EPOCH.fullmatch(line)
    return int(match[1]) if match else None


def metrics_of_file(content: bytes) -> dict[str, float]:
    """Read `metrics.json`; what is no number in it is left out.

    >>> metrics_of_file(b'{"accuracy": 0.86, "rows": 16281, "confusion": [[1, 2], [3, 4]]}')
    {'accuracy': 0.86, 'rows': 16281}
    """
    return _numbers(_object(content))


def with_metrics(metrics: Mapping[str, float], later: Mapping[str, float]) -> dict[str, float]:
    """Put together what was told earlier and later, by name: the later value counts, and one that is no number none.

    >>> with_metrics({"loss": 0.4, "accuracy": 0.8}, {"loss": float("nan"), "rows": 100})
    {'accuracy': 0.8, 'rows': 100}
    """
    told = {**later, **{name: value for name, value in metrics.items() if name not in later}}
    kept = islice(((name, value) for name, value in told.items() if is_finite(value)), _MOST)
    return dict(sorted(kept))


def is_finite(value: Any) -> bool:
    """Whether something is a number that can be shown and kept: neither NaN nor infinite, nor too great."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _GREATEST


def _object(text: str | bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _numbers(document: Any) -> dict[str, float]:
    if not isinstance(document, dict):
        return {}
    numbers = {
        name: value
        for name, value in document.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
        if 0 < len(name) <= _LONGEST_NAME and name.isprintable()
    }
    return dict(islice(numbers.items(), _MOST))
