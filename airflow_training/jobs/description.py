"""The job description: the document that a client sends and the service runs.

Source: docs of the job API, two generations of which are read (`resources` and `resourcePlanId`).
"""

from __future__ import annotations

import shlex
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from airflow_training.jobs.parameters import (
    REQUIREMENTS_FILE,
    EnvironmentVariable,
    TrainingParameters,
    script_file,
)


class _Wire(BaseModel):
    # What a newer or older client sends beside what we know is none of our business: it is ignored.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Variable(EnvironmentVariable):
    """An environment variable of the job."""

    model_config = ConfigDict(extra="ignore")


class Resources(_Wire):
    """What the job needs of a machine; memory in MB."""

    cpus: int = Field(1, ge=1)
    gpus: int = Field(0, ge=0)
    memory: int | None = Field(None, ge=1)


class Execution(_Wire):
    """How the job is run: `command` by a shell, in the job folder."""

    image: str | None = None
    command: str = Field(min_length=1)
    completion_time: str | int
    resources: Resources = Resources()
    resource_plan_id: str | None = None
    retries: int = Field(0, ge=0)

    @field_validator("resources", mode="before")
    @classmethod
    def _none_given(cls, value: Any) -> Any:
        return {} if value is None else value


class JobDescription(_Wire):
    """One job, as it travels: `{"job": {"name": …, "env": […], "execution": {…}}}`.

    Example:
        >>> document = {"job": {"name": "a", "execution": {"command": "true", "completionTime": 60}}}
        >>> JobDescription.from_wire(document).name
        'a'
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    env: tuple[Variable, ...] = ()
    execution: Execution

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, document: Any) -> Any:
        return document["job"] if isinstance(document, dict) and "job" in document else document

    @classmethod
    def from_wire(cls, document: Any) -> JobDescription:
        """Read a description; raises pydantic's ValidationError."""
        return cls.model_validate(document)

    @classmethod
    def of(cls, parameters: TrainingParameters) -> JobDescription:
        """Describe the job that a user's parameters ask for."""
        return cls.model_validate(
            {
                "name": parameters.job_name,
                "env": [{"name": variable.name, "value": variable.text} for variable in parameters.env],
                "execution": {
                    "image": parameters.image,
                    "command": command_line(parameters),
                    "completion_time": parameters.completion_time,
                    "resources": parameters.resources.model_dump(),
                },
            }
        )

    def to_wire(self) -> dict[str, Any]:
        """The document as it is sent."""
        return {"job": self.model_dump(by_alias=True, exclude_none=True, mode="json")}


def command_line(parameters: TrainingParameters) -> str:
    """Write the command that installs the requirements and runs the script.

    Every variable of `env` becomes an argument; a shell delivers each of them unchanged.

    Example:
        >>> command_line(TrainingParameters.read({
        ...     "job_name": "a", "image": "i", "completion_time": "1h", "script": "train.py",
        ...     "requirements": "numpy", "env": {"TRAIN_DATA": "adult data"}}))
        "pip3 install -r requirements.txt && python3 train.py '--train_data=adult data'"
    """
    pip, python = {2: ("pip", "python"), 3: ("pip3", "python3")}[parameters.python_major_version]
    arguments = [f"{variable.argument}={variable.text}" for variable in parameters.env]
    run = shlex.join([python, script_file(parameters.script), *arguments])
    if REQUIREMENTS_FILE in parameters.folder_files:
        return f"{shlex.join([pip, 'install', '-r', REQUIREMENTS_FILE])} && {run}"
    return run
