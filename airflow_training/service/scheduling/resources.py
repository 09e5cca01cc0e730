"""The resources that a job requests: by its description, by a resource plan, or by default."""

from __future__ import annotations

from collections.abc import Mapping

from airflow_training.api.description import Execution
from airflow_training.api.resources import RequestedResources, Resources
from airflow_training.service.errors import InvalidDescription, ServiceNotStarted

# The maximum of an integer column.
_MOST = 2**31 - 1


def parse_plan(text: str) -> tuple[str, Resources]:
    """Parse the definition of a resource plan.

    Raises:
        ServiceNotStarted: The text is not valid.

    >>> parse_plan("large=cpus:8,memory:32000,gpus:1")
    ('large', Resources(cpus=8, memory=32000, gpus=1))
    """
    name, _, amounts = text.partition("=")
    pairs = [pair.partition(":")[::2] for pair in amounts.split(",")]
    try:
        given = {resource.strip(): int(number) for resource, number in pairs}
        if (
            not name
            or not given.keys() <= {"cpus", "memory", "gpus"}
            or not 0 <= min(given.values()) <= max(given.values()) <= _MOST
        ):
            raise ValueError
        plan = Resources(max(given.get("cpus", 1), 1), max(given["memory"], 1), given.get("gpus", 0))
    except (ValueError, KeyError):
        raise ServiceNotStarted(
            f"The resource plan {text!r} cannot be read: write it like large=cpus:8,memory:32000,gpus:1, memory in MB.",
            code="AT-531",
        ) from None
    return name.strip(), plan


def requested_resources(execution: Execution, plans: Mapping[str, Resources], total: Resources) -> Resources:
    """The resources that a job requests: by its `resources`, by its plan, or the default.

    Without `memory`, a job gets memory in proportion to its cpus, as with Slurm's `DefMemPerCPU`.

    Args:
        execution: The execution of its description.
        plans: The resource plans of this service, by name.
        total: All resources of the machine.

    Raises:
        InvalidDescription: The plan does not exist.
    """
    plan = execution.resource_plan_id
    if plan and execution.resources is None:
        if plan not in plans:
            raise InvalidDescription(
                f"The resource plan {plan!r} is unknown; known plans: {', '.join(sorted(plans))}. Use one of these, or"
                f" start the service with --resource-plan {plan}=cpus:1,memory:4096,gpus:0.",
                status=422,
                code="AT-625",
            )
        return plans[plan]
    resources = execution.resources or RequestedResources()
    proportional = max(total.memory * min(resources.cpus, total.cpus) // total.cpus, 1)
    memory = proportional if resources.memory is None else resources.memory
    return Resources(resources.cpus, memory, resources.gpus)
