"""The description of a job that runs again: that of the job before, with its secrets, and with the changes."""

from __future__ import annotations

from typing import Any

from airflow_training.api.description import JobDescription, Variable
from airflow_training.api.rerun import JobChanges, with_argument
from airflow_training.api.resources import Resources
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.reruns.secrets_in_descriptions import is_sensitive, masks_of, sensitive_masks
from airflow_training.service.runners.supervisor.secret_masks import Masks


def changed(job_id: str, description: JobDescription, requested: Resources, changes: JobChanges) -> dict[str, Any]:
    """The document to submit, which is yet to be validated.

    Args:
        job_id: The job before.
        description: Its description.
        requested: The resources that it requested.
        changes: What differs.

    Raises:
        InvalidDescription: A variable differs from an existing one in upper and lower case only.
    """
    document: dict[str, Any] = description.to_wire()["job"]
    execution = document["execution"]
    given = changes.model_dump(by_alias=True, exclude_none=True, mode="json")
    if "name" in given:
        document["name"] = given["name"]
    execution |= {name: given[name] for name in ("image", "command", "completionTime") if name in given}
    if resources := given.get("resources"):
        plan = execution.pop("resourcePlanId", None)
        if plan and "resources" not in execution:
            execution["resources"] = {"cpus": requested.cpus, "gpus": requested.gpus, "memory": requested.memory}
        execution["resources"] = execution.get("resources", {}) | resources
    variables = _changed_variables(description.env, changes.env)
    document["env"] = [variable.model_dump(mode="json") for variable in variables]
    if not changes.command:
        for variable in changes.env:
            execution["command"] = with_argument(execution["command"], variable.name.lower(), variable.text)
    masks = [*(description.masks or ()), *_new_masks(description, changes.env), *sensitive_masks(variables)]
    document["masks"] = list(dict.fromkeys(masks)) or None
    document["rerunOf"] = job_id
    return document


def _changed_variables(before: tuple[Variable, ...], changes: tuple[Variable, ...]) -> list[Variable]:
    variables = {variable.name: variable for variable in before}
    by_argument = {variable.argument: variable.name for variable in before}
    for variable in changes:
        known = by_argument.get(variable.argument, variable.name)
        if variable.name not in variables and known != variable.name:
            raise InvalidDescription(
                f"The job has no variable {variable.name} to change but {known}: write it in the same upper and lower"
                " case.",
                status=422,
                code="AT-671",
            )
        variables[variable.name] = variable
    return list(variables.values())


def _new_masks(description: JobDescription, changes: tuple[Variable, ...]) -> list[str]:
    """The masks for new values of variables that were masked before, whatever their names."""
    masks = Masks(description.masks or ())
    secret = {variable.name for variable in description.env if masks.mask(variable.text) != variable.text}
    return [
        mask
        for variable in changes
        if variable.name in secret and not is_sensitive(variable.name)
        for mask in masks_of(variable)
    ]
