"""What a script prints, and what of it is taken for a metric."""

from __future__ import annotations

import pytest

from airflow_training.api.metrics import merge_metrics, metrics_of_file, metrics_of_line


@pytest.mark.parametrize(
    ("line", "metrics"),
    [
        ('{"metrics": {"accuracy": 0.86, "rows": 16281}}', {"accuracy": 0.86, "rows": 16281}),
        ('  {"step": 3, "metrics": {"loss": 1e-3}}', {"loss": 0.001}),
        ("318/318 - 1s - 2ms/step - accuracy: 0.8623 - loss: 0.3021", {"accuracy": 0.8623, "loss": 0.3021}),
        (
            "318/318 ━━━━━━━━━━━━━━━━━━━━ 1s 2ms/step - accuracy: 0.8623 - loss: 3.0e-01 - val_accuracy: 0.85",
            {"accuracy": 0.8623, "loss": 0.3, "val_accuracy": 0.85},
        ),
        ("  1/1 - 0s - 95ms/step - mae: 12", {"mae": 12}),
        ("318/318 - 1s - loss: 0.3 - accuracy: 0.8623 - 1s/epoch - 2ms/step", {"loss": 0.3, "accuracy": 0.8623}),
        ("12/318 ━━━━━━━━━━━━━━━━━━━━ 1s 2ms/step - accuracy: 0.5", {}),
        ('{"metrics": [1, 2]}', {}),
        ('{"metrics": {"accuracy": "good", "works": true, "\\u0000": 1, "\\ud800": 1}}', {}),
        ('{"metrics": {"accuracy": 0.86}', {}),
        ('"metrics"', {}),
        ("", {}),
    ],
)
def test_a_line_tells_its_metrics(line: str, metrics: dict[str, float]) -> None:
    assert metrics_of_line(line) == metrics


@pytest.mark.parametrize(
    "line",
    [
        '{"metrics": {"loss": NaN, "accuracy": 0.1}}',
        '{"metrics": {"loss": -Infinity, "accuracy": 0.1}}',
        '{"metrics": {"accuracy": 0.1, "loss": 1' + "0" * 400 + "}}",
        "318/318 - 1s - 2ms/step - accuracy: 0.1 - loss: nan",
        "318/318 - 1s - 2ms/step - accuracy: 0.1 - loss: inf",
    ],
)
def test_a_model_that_diverged_has_no_loss_of_better_times(line: str) -> None:
    assert merge_metrics({"loss": 0.3, "accuracy": 0.9}, metrics_of_line(line)) == {"accuracy": 0.1}


def test_what_is_told_later_comes_before_what_is_too_much() -> None:
    many = {f"m{number}": 1.0 for number in range(100)}

    assert merge_metrics(many, {"accuracy": 0.9})["accuracy"] == 0.9
    assert len(merge_metrics(many, {"accuracy": 0.9})) == 100


def test_a_file_of_nonsense_tells_none() -> None:
    assert metrics_of_file(b"\xff{") == {}
    assert metrics_of_file(b"[" * 100_000) == {}
    assert metrics_of_file(b"[1]") == {}


def test_metrics_without_end_are_cut() -> None:
    names = ", ".join(f'"m{number}": {number}' for number in range(1000))

    assert len(metrics_of_file(f"{{{names}, {'x' * 1000!r}: 1}}".replace("'", '"').encode())) == 100
