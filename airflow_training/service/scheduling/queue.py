"""The order of the queue: first come, first served. A later job never delays an earlier one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from airflow_training.api.resources import Resources
from airflow_training.service.scheduling.capacity import Capacity
from airflow_training.service.scheduling.job import JobKey


class QueuedJob(NamedTuple):
    """A job that waits.

    Attributes:
        key: The job.
        requested: The resources that it requests.
    """

    key: JobKey
    requested: Resources


def next_job(queue: Iterable[QueuedJob], capacity: Capacity) -> QueuedJob | None:
    """The first job that may start now.

    A job that does not fit reserves what is free of everything it needs: a later job may start only on what the
    earlier ones do not need. So a job that waits for a GPU does not hold up jobs that need none, and many small jobs
    never keep a big one waiting.

    Args:
        queue: The jobs that wait and can ever run here, by submission time. Read no further than needed.
        capacity: The resources that they wait for.
    """
    left = capacity.free
    # Every job needs a cpu and memory.
    if left.cpus < 1 or left.memory < 1:
        return None
    for job in queue:
        allocation = capacity.allocation(job.requested)
        if allocation.fits_in(left):
            return job
        left = left.minus(allocation)
        if left.cpus < 1 or left.memory < 1:
            return None
    return None


def why_waiting(requested: Resources, ahead: int, capacity: Capacity) -> str:
    """The message of a job that waits.

    Args:
        requested: The resources that it requests.
        ahead: The number of jobs before it in the queue.
        capacity: The resources that it waits for.
    """
    if capacity.blocked:
        return capacity.blocked
    allocation, free, total = capacity.allocation(requested), capacity.free, capacity.total
    if allocation.gpus > total.gpus:
        return f"requests {allocation.gpus} GPUs, but this machine has {total.gpus}: waiting for a service with more"
    lacking = []
    if allocation.cpus > free.cpus:
        lacking.append(f"{allocation.cpus} of {total.cpus} CPUs")
    if allocation.memory > free.memory:
        lacking.append(f"{allocation.memory} of {total.memory} MB of memory")
    if allocation.gpus and allocation.gpus > free.gpus:
        lacking.append(f"{allocation.gpus} of {total.gpus} GPUs")
    jobs = "1 job" if ahead == 1 else f"{ahead} jobs"
    return f"waiting for {' and '.join(lacking) or 'its turn'}, {jobs} ahead"
