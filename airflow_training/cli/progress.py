"""How far an upload or a download is: a bar on a terminal, a line for each file anywhere else."""

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

    def file_done(self, what: str) -> None:
        """One more file is done."""


@contextmanager
def progress(what: str, total: int) -> Iterator[Shown]:
    """Show how far it is, on the standard error.

    Args:
        what: What is done.
        total: How many bytes are to be done.
    """
    screen = console(err=True)
    if not screen.is_terminal:
        yield _Lines()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=screen) as bar:
        task = bar.add_task(what, total=total)

        class _Bar:
            def bytes_done(self, count: int) -> None:
                bar.advance(task, count)

            def file_done(self, what: str) -> None:
                pass

        yield _Bar()


class _Lines:
    def bytes_done(self, count: int) -> None:
        pass

    def file_done(self, what: str) -> None:
        typer.echo(printable(what), err=True)
