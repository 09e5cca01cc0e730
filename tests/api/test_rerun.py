"""A changed variable changes the argument of the same name in a command, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_training.api.description import command_line
from airflow_training.api.parameters import TrainingParameters
from airflow_training.api.rerun import with_argument

VALUES = st.text(st.sampled_from("ab 1'\"\\$`*~#&|;<>()\n=-ü"), max_size=12)


def command(**env: str) -> str:
    given = {"job_name": "a", "image": "i", "completion_time": "1h", "script": "train it.py", "requirements": "numpy"}
    return command_line(TrainingParameters.read({**given, "env": env}))


@given(before=VALUES, after=VALUES, other=VALUES)
def test_the_command_is_the_one_of_the_changed_variable(before: str, after: str, other: str) -> None:
    changed = with_argument(command(DATA=before, DATA_2=other), "data", after)

    assert changed == command(DATA=after, DATA_2=other)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("train --x=1 && test --x=2", "train --x=new && test --x=new"),
        ('train --x="a b"', "train --x=new"),
        ('train --x="$X" --x=$X --x=`date`', 'train --x="$X" --x=$X --x=`date`'),
        ("train --xy=1 a--x=1 '; --x=1' --x 1", "train --xy=1 a--x=1 '; --x=1' --x 1"),
        ("echo it's --x=1", "echo it's --x=new"),
    ],
)
def test_only_an_argument_with_a_value_that_is_written_there_is_changed(before: str, after: str) -> None:
    assert with_argument(before, "x", "new") == after
