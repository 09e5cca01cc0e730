"""The output of commands on a terminal."""

from __future__ import annotations

import pytest
import typer

from airflow_training.cli.output import print_errors
from airflow_training.exceptions import TrainingError


def test_an_error_contains_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), print_errors():
        raise TrainingError("The service says \x1b]0;title\x07\x1b[2J.\nIts log", code="AT-000")

    assert capsys.readouterr().err == "The service says �]0;title��[2J. [AT-000]\nIts log\n"
