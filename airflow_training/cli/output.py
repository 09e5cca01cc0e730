"""What the commands share: exit codes, errors, tables, JSON, and the progress of transfers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from airflow_training.exceptions import TrainingError

if TYPE_CHECKING:
    from rich.console import Console

FAILED = 1
"""The exit code of a command that failed; a wrong command line exits with 2."""

JOB_FAILED = 3
"""The exit code of a command that followed a job to its end, which was not success."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def print_errors() -> Iterator[None]:
    """Print an error as a sentence and end the command."""
    try:
        yield
    except TrainingError as error:
        typer.echo(printable_lines(error), err=True)
        raise typer.Exit(FAILED) from error


@contextmanager
def print_service_errors() -> Iterator[None]:
    """The same for commands of the training service, whose extra need not be installed."""
    with print_errors():
        try:
            yield
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("airflow_training"):
                raise
            raise TrainingError(
                f"The training service needs {error.name}: install airflow-training[service].",
                code="AT-506",
            ) from error


def console(*, err: bool = False) -> Console:
    """The console for tables and progress; output to a file or a pipe is not cut to the width of a terminal."""
    from rich.console import Console

    stream = sys.stderr if err else sys.stdout
    return Console(stderr=err, highlight=False, width=None if stream.isatty() else 10_000)


def show(rows: Sequence[Mapping[str, Any]], *, as_json: bool) -> None:
    """Print rows with the same names as a table, or as a JSON array."""
    if as_json:
        typer.echo(json.dumps(rows))
        return
    from rich.table import Table
    from rich.text import Text

    if not rows:
        typer.echo("None.", err=True)
        return
    table = Table(box=None)
    first, *others = rows[0]
    # The first column is an argument of other commands, so it is never wrapped or cut.
    table.add_column(_words(first), no_wrap=True, min_width=max(len(printable(row[first])) for row in rows))
    for name in others:
        table.add_column(_words(name), overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(value)) for value in row.values()))
    console().print(table)


def show_one(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print names and values, one in each line, or as a JSON object."""
    if as_json:
        typer.echo(json.dumps(facts))
        return
    width = max(map(len, facts)) + 2
    typer.echo("\n".join(f"{_words(name):{width}}{printable(value)}" for name, value in facts.items()))


def printable(value: Any) -> str:
    """A value without control characters, which a terminal would interpret."""
    text = "" if value is None else str(value)
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def printable_lines(value: Any) -> str:
    """The same for several lines."""
    return "\n".join(map(printable, str(value).split("\n")))


def _words(name: str) -> str:
    return name.replace("_", " ")


class ProgressView(Protocol):
    """Shows the progress of a transfer."""

    def bytes_done(self, count: int) -> None:
        """Report bytes that were transferred."""

    def file_done(self, name: str, size: int, was_sent: bool, /) -> None:
        """Report a file that is complete."""


@contextmanager
def progress(what: str, total: int, count: int, words: tuple[str, str, str]) -> Iterator[ProgressView]:
    """Show the progress of a transfer on the standard error: a bar on a terminal, and lines anywhere else.

    Args:
        what: The label of the bar.
        total: Bytes to transfer.
        count: Files to transfer.
        words: The words of the lines, see TransferLog.
    """
    screen = console(err=True)
    if not screen.is_terminal:
        from airflow_training.client.storage import TransferLog

        lines = TransferLog(lambda line: typer.echo(printable(line), err=True), count, words)
        yield lines
        lines.end()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task(what, total=total)

        class _Bar:
            def bytes_done(self, count: int) -> None:
                bar.advance(task, count)

            def file_done(self, *_: object) -> None:
                pass

        yield _Bar()
