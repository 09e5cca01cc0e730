"""What the commands have in common: how they end, and how they show what they found to people and to programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airflow_training.exceptions import TrainingError

if TYPE_CHECKING:
    from rich.console import Console

FAILED = 1
"""The exit code of a command that could not do what it was asked for; that of a wrong command line is 2."""

JOB_FAILED = 3
"""The exit code of a command that followed a job which ended, and not well."""

JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON.")]


@contextmanager
def errors_in_a_sentence() -> Iterator[None]:
    """End the command with one sentence where the user can put it right."""
    try:
        yield
    except TrainingError as error:
        typer.echo(printable_lines(error), err=True)
        raise typer.Exit(FAILED) from error


@contextmanager
def errors_of_the_service_in_a_sentence() -> Iterator[None]:
    """The same for commands of the training service, which need not be installed."""
    with errors_in_a_sentence():
        try:
            yield
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("airflow_training"):
                raise
            raise TrainingError(
                f"The training service needs {error.name}: install airflow-training with its extra, [service].",
                code="AT-506",
            ) from error


def console(*, err: bool = False) -> Console:
    """Where tables and progress are shown; what goes into a file or a pipe is not cut to the width of a terminal."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, highlight=False, width=None if stream.isatty() else 10_000)


def show(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Show a list of what all has the same names: as a table, or as a JSON array."""
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.table import Table
    from rich.text import Text

    if not rows:
        typer.echo("There are none.", err=True)
        return
    table = Table(box=None)
    first, *others = rows[0]
    # What the other commands want: it is whole on a terminal of any width.
    table.add_column(_words(first), no_wrap=True, min_width=max(len(printable(row[first])) for row in rows))
    for name in others:
        table.add_column(_words(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(value)) for value in row.values()))
    console().print(table)


def show_one(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Show facts, one in each line, or as a JSON object."""
    if as_json:
        typer.echo(json.dumps(facts))
        return
    width = max(map(len, facts)) + 2
    typer.echo("\n".join(f"{_words(name):{width}}{printable(value)}" for name, value in facts.items()))


def printable(value: Any) -> str:
    """Write a value for a terminal, which must not take a part of it for a command."""
    text = "" if value is None else str(value)
    return text if text.isprintable() else "".join(_printable(text))


def printable_lines(value: Any) -> str:
    """Write several lines for a terminal."""
    return "\n".join(map(printable, str(value).split("\n")))


def _printable(text: str) -> Iterable[str]:
    return (character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def _words(name: str) -> str:
    return name.replace("_", " ")
