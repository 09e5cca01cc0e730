"""What commands show on a terminal."""

from __future__ import annotations

import pytest
import typer

from airflow_training.cli.output import errors_in_a_sentence
from airflow_training.exceptions import TrainingError


def test_an_error_gives_no_orders_to_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), errors_in_a_sentence():
        raise TrainingError("The service says \x1b]0;title\x07\x1b[2J.\nIts log", code="AT-000")

    assert capsys.readouterr().err == "The service says �]0;title��[2J. [AT-000]\nIts log\n"
