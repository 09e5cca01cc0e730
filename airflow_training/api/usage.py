"""What a job used of its machine while it ran, as it travels."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Share(BaseModel):
    """An amount of a machine: what a job asked for, or got.

    Attributes:
        cpus: How many cpus.
        memory: MB.
        gpus: How many graphics processors.
    """

    cpus: int
    memory: int
    gpus: int


class UsageSample(BaseModel):
    """What a job used at a moment, or on average since the sample before that was taken.

    Of a job that runs for long, samples become fewer: each then stands for the ones that it took the place of.

    Attributes:
        time: When, in seconds since 1970.
        cpus: How many cpus' time on average since then: 1.5 is one and a half.
        memory: MB of memory at that moment, without what the machine keeps of files and can give up.
        gpus: How many graphics processors' time; None where it has none or they cannot be asked.
        gpu_memory: MB of their memory; None likewise.
    """

    time: float
    cpus: float = Field(ge=0)
    memory: float = Field(ge=0)
    gpus: float | None = None
    gpu_memory: float | None = None


class JobUsage(BaseModel):
    """What a job asked for, what it got, and what it used.

    Attributes:
        asked: What its description asks for.
        granted: What it got, which is its limit.
        samples: The samples in the order of time; thinned where there are more than were asked for.
    """

    asked: Share
    granted: Share
    samples: list[UsageSample]
