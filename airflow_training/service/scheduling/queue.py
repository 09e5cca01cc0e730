"""Whose turn it is: first come, first served, and nobody who comes later delays one who came before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from airflow_training.service.runners.runner import JobKey
from airflow_training.service.scheduling.capacity import Machine
from airflow_training.service.scheduling.resources import Amount


class Waiting(NamedTuple):
    """A job that waits.

    Attributes:
        key: Which one.
        asked: What it asks for.
    """

    key: JobKey
    asked: Amount


def startable(waiting: Iterable[Waiting], machine: Machine) -> Waiting | None:
    """The first job that may start now.

    A job for which there is not enough keeps what there is of all that it needs: a later one may start only on what
    the earlier ones do not need. So a job for a gpu does not hold up jobs that need none, and many small jobs never
    keep a big one waiting.

    Args:
        waiting: The jobs that wait and can ever run here, in the order of their submission. Not read further than
            needed.
        machine: What they wait for.
    """
    left = machine.free
    # Every job needs a cpu and memory: where there is neither, nobody's turn is near.
    if left.cpus < 1 or left.memory < 1:
        return None
    for job in waiting:
        amount = machine.granted(job.asked)
        if amount.fits_in(left):
            return job
        left = left.minus(amount)
        if left.cpus < 1 or left.memory < 1:
            return None
    return None


def why_waiting(asked: Amount, ahead: int, machine: Machine) -> str:
    """Tell a job why it does not run yet.

    Args:
        asked: What it asks for.
        ahead: How many jobs came before it and wait too.
        machine: What they wait for.
    """
    if machine.closed:
        return machine.closed
    amount, free, capacity = machine.granted(asked), machine.free, machine.capacity
    if amount.gpus > capacity.gpus:
        return f"asks for {amount.gpus} gpus and this machine has {capacity.gpus}: waiting for a service with more"
    lacking = []
    if amount.cpus > free.cpus:
        lacking.append(f"{amount.cpus} of {capacity.cpus} cpus")
    if amount.memory > free.memory:
        lacking.append(f"{amount.memory} of {capacity.memory} MB of memory")
    if amount.gpus and amount.gpus > free.gpus:
        lacking.append(f"{amount.gpus} of {capacity.gpus} gpus")
    jobs = "1 job" if ahead == 1 else f"{ahead} jobs"
    return f"waiting for {' and '.join(lacking) or 'its turn'}, {jobs} ahead"
