"""Lines of a job's log on their way into the task log.

Airflow takes about half a millisecond for a line. Lines are written in a thread, so that the event loop goes on; those
of all jobs of a loop together, since a thread for each would cost more than the lines.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context, copy_context
from typing import Any, NamedTuple, Protocol

from airflow_training.jobs.level import level_of
from airflow_training.jobs.log import LogRecord
from airflow_training.jobs.metrics import metrics_of_line, with_metrics
from airflow_training.per_loop import PerLoop

# Lines that are written before those whose they are have their turn: no job keeps the others waiting for long, nor all
# together the event loop.
_LINES_AT_ONCE = 50


class TaskLog(Protocol):
    """The part of Airflow's logger that is needed here."""

    def log(self, level: int, event: str, **kwargs: Any) -> Any:
        """Write a line."""


async def write_lines(log: TaskLog, records: Sequence[LogRecord], metrics: Mapping[str, float]) -> dict[str, float]:
    """Write lines into a task log, each with the time at which it was written by the job.

    Args:
        log: The task log.
        records: The lines.
        metrics: What earlier lines told of the model.

    Returns:
        The metrics as they are after these lines.
    """
    known = dict(metrics)
    for start in range(0, len(records), _LINES_AT_ONCE):
        known = await _writers.get().write(log, records[start : start + _LINES_AT_ONCE], known)
    return known


class _Order(NamedTuple):
    lines: int
    work: Callable[[], dict[str, float]]
    # Airflow knows by it whose log a line belongs to.
    context: Context
    done: asyncio.Future[dict[str, float]]

    def carry_out(self) -> dict[str, float] | Exception:
        try:
            return self.context.run(self.work)
        except Exception as error:  # noqa: BLE001 - it is raised where the lines came from
            return error


class _Writer:
    """Writes what has come together while the last lines were written."""

    def __init__(self) -> None:
        self._orders: deque[_Order] = deque()
        self._task: asyncio.Task[None] | None = None

    async def write(self, log: TaskLog, records: Sequence[LogRecord], metrics: dict[str, float]) -> dict[str, float]:
        done: asyncio.Future[dict[str, float]] = asyncio.get_running_loop().create_future()
        self._orders.append(_Order(len(records), lambda: _write(log, records, metrics), copy_context(), done))
        if not self._task or self._task.done():
            self._task = Context().run(asyncio.ensure_future, self._work())
        return await done

    async def _work(self) -> None:
        while self._orders:
            orders = self._next()
            try:
                results = await asyncio.to_thread(lambda orders: [order.carry_out() for order in orders], orders)
            except Exception as error:  # noqa: BLE001 - no thread can be started, for instance
                results = [error] * len(orders)
            for order, result in zip(orders, results, strict=True):
                if order.done.done():
                    continue
                if isinstance(result, Exception):
                    order.done.set_exception(result)
                else:
                    order.done.set_result(result)

    def _next(self) -> list[_Order]:
        orders: list[_Order] = []
        while self._orders and sum(order.lines for order in orders) < _LINES_AT_ONCE:
            orders.append(self._orders.popleft())
        return orders


_writers = PerLoop(_Writer)


def _write(log: TaskLog, records: Sequence[LogRecord], metrics: dict[str, float]) -> dict[str, float]:
    for record in records:
        if told := metrics_of_line(record.line):
            metrics = with_metrics(metrics, told)
        # One call site with the same fields: the log page then drops lines that a restarted triggerer repeats.
        log.log(level_of(record.line), record.line, **({"timestamp": record.time} if record.time else {}))
    return metrics
