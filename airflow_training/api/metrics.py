"""The metrics of a model, as a training script logs them.

There are three ways, none of which needs a library:

- a line of JSON with the key `metrics`: `{"metrics": {"accuracy": 0.86, "loss": 0.31}}`, and beside it `step` or
  `epoch`, the position on their curves;
- the lines that Keras prints at the end of an epoch, `1018/1018 - 2s - 2ms/step - accuracy: 0.8623 - loss: 0.3021`, and
  before it, `Epoch 3/8`;
- the file `metrics.json` in the job folder: `{"accuracy": 0.86, "loss": 0.31}`.

The last value of a metric counts; if it is NaN or infinite, the metric has no value. The file takes precedence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal, NamedTuple

METRICS_FILE = "metrics.json"

# Limits of what Airflow can show, and store with each event of an asset.
_MAX_METRICS = 100
_MAX_NAME = 100
# Larger integers do not fit into a float, and databases cannot store NaN and infinities.
_MAX_VALUE = 1e300

# The last step of an epoch: `318/318 - 1s - 2ms/step - accuracy: 0.8623 - loss: 0.3021`. Some versions of Keras have a
# bar instead of a dash, or the times at the end.
_LAST_STEP = re.compile(r"\s*(\d+)/\1 .*\d[mun]?s/step")
_METRIC = re.compile(r" - ([\w./-]+): (\S+)")
_EPOCH = re.compile(r"\s*Epoch (\d{1,15})/\d+\s*")

_UNITS: tuple[Literal["step", "epoch"], ...] = ("step", "epoch")

METRIC_HINTS = ('"metrics"', "s/step", "Epoch ")
"""A line without any of these has no metrics: a fast check of thousands of lines at once."""


class LoggedMetrics(NamedTuple):
    """The metrics in a line of a log.

    Attributes:
        metrics: The values by name, including NaN and infinities.
        unit: The unit of `step`; "value" if the line has no step.
        step: The position on their curves; None if the line has none.
    """

    metrics: dict[str, float]
    unit: Literal["epoch", "step", "value"] = "value"
    step: float | None = None


def metrics_of_line(line: str) -> dict[str, float]:
    """Parse the metrics in a line of a log; most lines have none.

    >>> metrics_of_line('{"metrics": {"accuracy": 0.86}, "epoch": 3}')
    {'accuracy': 0.86}
    >>> metrics_of_line("318/318 ━━━━━━━━━━ 1s 2ms/step - accuracy: 0.8512 - val_loss: nan")
    {'accuracy': 0.8512, 'val_loss': nan}
    """
    return logged_metrics(line).metrics


def logged_metrics(line: str) -> LoggedMetrics:
    """Parse the metrics in a line of a log, with their step if it is in the same line.

    If a line has both `step` and `epoch`, the step counts: it is finer.

    >>> logged_metrics('{"metrics": {"accuracy": 0.86}, "epoch": 3}')
    LoggedMetrics(metrics={'accuracy': 0.86}, unit='epoch', step=3)
    """
    if '"metrics"' in line:
        document = _object(line)
        metrics = _numbers(document.get("metrics"))
        for unit in _UNITS:
            if is_finite(step := document.get(unit)):
                return LoggedMetrics(metrics, unit, step)
        return LoggedMetrics(metrics)
    if "s/step" in line and _LAST_STEP.match(line):
        return LoggedMetrics(_numbers({name: _number(text) for name, text in _METRIC.findall(line)}))
    return LoggedMetrics({})


def epoch_of_line(line: str) -> int | None:
    """Parse the number of the epoch that Keras begins; None for other lines.

    >>> epoch_of_line("Epoch 3/8")
    3
    """
    match = _EPOCH.fullmatch(line)
    return int(match[1]) if match else None


def metrics_of_file(content: bytes) -> dict[str, float]:
    """Parse `metrics.json`; values that are not numbers are ignored.

    >>> metrics_of_file(b'{"accuracy": 0.86, "rows": 16281, "confusion": [[1, 2], [3, 4]]}')
    {'accuracy': 0.86, 'rows': 16281}
    """
    return _numbers(_object(content))


def merge_metrics(metrics: Mapping[str, float], later: Mapping[str, float]) -> dict[str, float]:
    """Merge earlier and later metrics: the later value counts, and NaN and infinities are dropped.

    >>> merge_metrics({"loss": 0.4, "accuracy": 0.8}, {"loss": float("nan"), "rows": 100})
    {'accuracy': 0.8, 'rows': 100}
    """
    merged = {**later, **{name: value for name, value in metrics.items() if name not in later}}
    kept = islice(((name, value) for name, value in merged.items() if is_finite(value)), _MAX_METRICS)
    return dict(sorted(kept))


def is_finite(value: Any) -> bool:
    """Whether a value is a number that can be shown and stored: not NaN, infinite or too large."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MAX_VALUE


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
        if 0 < len(name) <= _MAX_NAME and name.isprintable()
    }
    return dict(islice(numbers.items(), _MAX_METRICS))
