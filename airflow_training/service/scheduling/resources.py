"""Amounts of what a machine has and a job needs: cpus, memory, gpus."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from airflow_training.api.description import Execution, Resources
from airflow_training.service.errors import InvalidDescription, ServiceNotStarted


class Amount(NamedTuple):
    """So much of a machine.

    Attributes:
        cpus: Processors.
        memory: MB.
        gpus: Graphics processors.
    """

    cpus: int
    memory: int
    gpus: int = 0

    def minus(self, other: Amount) -> Amount:
        """What is left; less than nothing where the other is more."""
        return Amount(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))

    def fits_in(self, free: Amount) -> bool:
        """Whether there is enough of everything that is needed; what is not needed may be overdrawn."""
        return all(wanted <= left or not wanted for wanted, left in zip(self, free, strict=True))

    def in_words(self) -> str:
        """Say it.

        >>> Amount(2, 4096, 1).in_words()
        '2 cpus, 4096 MB of memory and 1 gpu'
        """
        gpus = f" and {_count(self.gpus, 'gpu')}" if self.gpus else ""
        return f"{_count(self.cpus, 'cpu')}{',' if gpus else ' and'} {self.memory} MB of memory{gpus}"


# What a column of the job table holds.
_MOST = 2**31 - 1


def read_plan(text: str) -> tuple[str, Amount]:
    """Read what a resource plan stands for.

    Raises:
        ServiceNotStarted: It cannot be read.

    >>> read_plan("large=cpus:8,memory:32000,gpus:1")
    ('large', Amount(cpus=8, memory=32000, gpus=1))
    """
    name, _, amounts = text.partition("=")
    pairs = [pair.partition(":")[::2] for pair in amounts.split(",")]
    try:
        given = {what.strip(): int(number) for what, number in pairs}
        if (
            not name
            or not given.keys() <= {"cpus", "memory", "gpus"}
            or not 0 <= min(given.values()) <= max(given.values()) <= _MOST
        ):
            raise ValueError
        return name.strip(), Amount(max(given.get("cpus", 1), 1), max(given["memory"], 1), given.get("gpus", 0))
    except (ValueError, KeyError):
        raise ServiceNotStarted(
            f"The resource plan {text!r} cannot be read: write it like large=cpus:8,memory:32000,gpus:1, memory in MB.",
            code="AT-531",
        ) from None


def wanted(execution: Execution, plans: Mapping[str, Amount], capacity: Amount) -> Amount:
    """What a job asks for: by its `resources`, by its plan, or by neither.

    A job that does not say how much memory it needs gets the share of its cpus, as in Slurm's `DefMemPerCPU`.

    Args:
        execution: How the job is to be run.
        plans: The resource plans that are known here.
        capacity: What the machine has.

    Raises:
        InvalidDescription: The plan is not known.
    """
    plan = execution.resource_plan_id
    if plan and execution.resources is None:
        if plan not in plans:
            raise InvalidDescription(
                f"The resource plan {plan!r} is not known here, but {', '.join(sorted(plans))}: name one of these, or"
                f" have the service started with --resource-plan {plan}=cpus:1,memory:4096,gpus:0.",
                status=422,
                code="AT-625",
            )
        return plans[plan]
    resources = execution.resources or Resources()
    share = max(capacity.memory * min(resources.cpus, capacity.cpus) // capacity.cpus, 1)
    return Amount(resources.cpus, share if resources.memory is None else resources.memory, resources.gpus)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
