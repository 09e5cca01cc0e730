"""A warning of a job is a warning in the task log."""

from __future__ import annotations

from logging import CRITICAL, ERROR, INFO, WARNING

import pytest

from airflow_training.following.task_log import level_of


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("WARNING:root:a message", WARNING),
        ("2026-11-24 10:00:00,123 - trainer.loop - ERROR - a message", ERROR),
        ("2026-11-24T10:00:00.123Z [ERROR] a message", ERROR),
        ("[2026-11-24 10:00:00] CRITICAL a message", CRITICAL),
        ("[WARN] a message", WARNING),
        ("ERROR: Could not find a version that satisfies the requirement no-such-package", ERROR),
        ("2026-11-24 10:00:00.123456: W tensorflow/core/util.cc:12] a message", WARNING),
        ("E0000 00:00:1732442400.123456   12345 cuda_dnn.cc:8310] a message", ERROR),
        ("F1124 10:00:00.123456 12345 file.cc:12] a message", CRITICAL),
        ("10:51:05 | WARNING | a message", WARNING),
        ("INFO:root:an ERROR: later in the line", INFO),
        ("DEBUG:root:a message", INFO),
        ("Errors: 0", INFO),
        ("ERRORS 0", INFO),
        ("Error rate 0.1", INFO),
        ("Epoch 1/8 - loss: 0.5", INFO),
        ("WARNING", INFO),
        ("", INFO),
    ],
)
def test_the_level_is_the_one_that_the_line_tells(line: str, level: int) -> None:
    assert level_of(line) == level


def test_a_long_line_takes_no_time() -> None:
    assert level_of("1 " * 8192) == INFO
    assert level_of("a-" * 8192) == INFO
