"""The job description: the document that a client sends and the service runs.

Source: docs of the job API, two generations of which are read (`resources` and `resourcePlanId`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from airflow_training.api.durations import check_duration
from airflow_training.api.parameters import (
    EnvironmentVariable,
    TrainingParameters,
    script_file,
)
from airflow_training.api.requirements import REQUIREMENTS_FILE

LONGEST_COMMAND = 100_000
"""Bytes that a command may have: Linux starts a program with 128 KiB in one argument, and no more."""


def _of_a_fit_length(command: str) -> str:
    if len(command.encode(errors="surrogatepass")) > LONGEST_COMMAND:
        raise ValueError(f"has more than {LONGEST_COMMAND} bytes: put it into a script")
    return command


class _Wire(BaseModel):
    # What a newer or older client sends beside what we know is none of our business: it is ignored.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Variable(EnvironmentVariable):
    """An environment variable of the job."""

    model_config = ConfigDict(extra="ignore")


class Resources(_Wire):
    """What the job needs of a machine.

    Attributes:
        cpus: Processors.
        gpus: Graphics processors.
        memory: MB; without it the service gives the job the share of its cpus.
    """

    cpus: int = Field(1, ge=1, le=100_000)
    gpus: int = Field(0, ge=0, le=10_000)
    memory: int | None = Field(None, ge=1, le=1_000_000_000, description="MB")


class Execution(_Wire):
    """How the job is run: `command` by a shell, in the job folder.

    Attributes:
        image: The container image; a runner without containers records it only.
        command: One command line for `sh -c`.
        completion_time: How long the job may run: `20h`, `90m`, or a number of seconds.
        resources: What it needs of a machine.
        resource_plan_id: A name for resources, instead of these.
        retries: How often the service runs the job again when it fails.
        python_major_version: The Python that the command needs.
    """

    image: str | None = Field(None, max_length=512)
    command: Annotated[str, AfterValidator(_of_a_fit_length)] = Field(min_length=1, max_length=LONGEST_COMMAND)
    completion_time: Annotated[str, Field(min_length=1, max_length=64)] | Annotated[int, Field(ge=1, le=1_000_000_000)]
    resources: Resources | None = None
    resource_plan_id: str | None = Field(None, max_length=64)
    retries: int = Field(0, ge=0, le=100)
    python_major_version: Literal[2, 3] | None = None

    @field_validator("completion_time")
    @classmethod
    def _is_a_time(cls, time: str | int, info: ValidationInfo) -> str | int:
        # On the wire it is free form.
        return check_duration(time) if info.context and info.context.get("strict") else time


class JobDescription(_Wire):
    """One job, as it travels: `{"job": {"name": …, "env": […], "execution": {…}}}`.

    Example:
        >>> document = {"job": {"name": "a", "execution": {"command": "true", "completionTime": 60}}}
        >>> JobDescription.from_wire(document).name
        'a'
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    env: tuple[Variable, ...] = Field((), max_length=1_000)
    execution: Execution
    # None and not empty: a service that does not know the field gets it only if there is a secret.
    masks: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        None, max_length=1_000, description="Secrets: the job's log shows `***` in place of each."
    )

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, document: Any) -> Any:
        return document["job"] if isinstance(document, dict) and "job" in document else document

    @classmethod
    def from_wire(cls, document: Any) -> JobDescription:
        """Read a description; raises pydantic's ValidationError."""
        return cls.model_validate(document)

    @classmethod
    def of(cls, parameters: TrainingParameters, masks: Sequence[str] = ()) -> JobDescription:
        """Describe the job that a user's parameters ask for.

        Args:
            parameters: What is asked for.
            masks: Secrets in them, which the job's log must not show.
        """
        return cls.model_validate(
            {
                "name": parameters.job_name,
                "env": [{"name": variable.name, "value": variable.text} for variable in parameters.env],
                "execution": {
                    "image": parameters.image,
                    "command": command_line(parameters),
                    "completion_time": parameters.completion_time,
                    "resources": parameters.resources.model_dump(exclude_none=True),
                    # The old service knew no such field; a command for Python 3 says so by its programs.
                    "python_major_version": 2 if parameters.python_major_version == 2 else None,
                },
                "masks": tuple(masks) or None,
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
