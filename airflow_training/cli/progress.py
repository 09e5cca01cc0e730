"""How far an upload or a download is: a bar on a terminal, and lines anywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import typer

from airflow_training.cli.output import console, printable


class Shown(Protocol):
    """Shows how far it is."""

    def bytes_done(self, count: int) -> None:
        """So many more bytes are done."""

    def file_done(self, name: str, size: int, was_sent: bool, /) -> None:
        """One more file is done."""


@contextmanager
def progress(what: str, total: int, count: int, words: tuple[str, str, str]) -> Iterator[Shown]:
    """Show how far it is, on the standard error.

    Args:
        what: What is done.
        total: How many bytes are to be done.
        count: How many files.
        words: What the lines say, see TransferLog.
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
