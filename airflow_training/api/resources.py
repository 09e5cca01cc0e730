"""The resources of a job: CPUs, memory and GPUs."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


@dataclass(frozen=True, order=True)
class Resources:
    """Amounts of each resource: of a machine, requested for a job, or allocated to it.

    Attributes:
        cpus: CPUs.
        memory: MB.
        gpus: GPUs.
    """

    cpus: int
    memory: int
    gpus: int

    def minus(self, other: Resources) -> Resources:
        """The difference; negative if `other` is more."""
        return Resources(self.cpus - other.cpus, self.memory - other.memory, self.gpus - other.gpus)

    def fits_in(self, free: Resources) -> bool:
        """Whether enough is free of every resource that is needed; the others may be negative."""
        pairs = ((self.cpus, free.cpus), (self.memory, free.memory), (self.gpus, free.gpus))
        return all(needed <= left or not needed for needed, left in pairs)

    def __str__(self) -> str:
        """The amounts in words.

        >>> str(Resources(2, 4096, 1))
        '2 CPUs, 4096 MB of memory and 1 GPU'
        """
        gpus = f" and {_count(self.gpus, 'GPU')}" if self.gpus else ""
        return f"{_count(self.cpus, 'CPU')}{',' if gpus else ' and'} {self.memory} MB of memory{gpus}"


class RequestedResources(BaseModel):
    """Requested resources.

    Attributes:
        cpus: CPUs.
        gpus: GPUs.
        memory: MB; without it the job gets memory in proportion to its CPUs.
    """

    model_config = ConfigDict(frozen=True)

    # The descriptions complete the sentence "… must be …".
    cpus: int = Field(1, ge=1, le=100_000, description="a whole number, 1 or more")
    gpus: int = Field(0, ge=0, le=10_000, description="a whole number, 0 or more")
    memory: int | None = Field(None, ge=1, le=1_000_000_000, description="a whole number of MB, 1 or more")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"
