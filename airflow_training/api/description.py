"""The job description: its fields, the YAML or JSON it is written in, and its validation errors.

The document may be malicious. Both generations of the job API are supported (`resources` and `resourcePlanId`).
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from airflow_training.api.durations import check_duration
from airflow_training.api.naming import JOB_ID
from airflow_training.api.parameters import (
    SAVED_MODEL,
    EnvironmentVariable,
    TrainingParameters,
    check_model,
    script_module,
)
from airflow_training.api.requirements import REQUIREMENTS_FILE
from airflow_training.api.resources import RequestedResources

LONGEST_COMMAND = 100_000
"""Bytes of a command: Linux limits one argument of a program to 128 KiB."""


def _check_length(command: str) -> str:
    if len(command.encode(errors="surrogatepass")) > LONGEST_COMMAND:
        raise ValueError(f"has more than {LONGEST_COMMAND} bytes: put it into a script")
    return command


def _check_model(model: str) -> str:
    return check_model(model) if model else model


class _Wire(BaseModel):
    # Unknown fields of newer or older clients are ignored.
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class Variable(EnvironmentVariable):
    """An environment variable of the job."""

    model_config = ConfigDict(extra="ignore")


class Execution(_Wire):
    """How the job is run.

    Attributes:
        image: The container image; a runner without containers only records it.
        command: A command line for `sh -c`, run in the job folder.
        completion_time: The time limit: `20h`, `90m`, or a number of seconds.
        resources: The requested resources.
        resource_plan_id: The name of a resource plan, instead of `resources`.
        retries: How often the service retries a failed job.
        python_major_version: The Python version that the command needs.
        python_version: The same, such as `3.12`; in a container the image decides.
    """

    image: str | None = Field(None, max_length=512)
    command: Annotated[str, AfterValidator(_check_length)] = Field(min_length=1, max_length=LONGEST_COMMAND)
    completion_time: Annotated[str, Field(min_length=1, max_length=64)] | Annotated[int, Field(ge=1, le=1_000_000_000)]
    resources: RequestedResources | None = None
    resource_plan_id: str | None = Field(None, max_length=64)
    retries: int = Field(0, ge=0, le=100)
    python_major_version: Literal[2, 3] | None = None
    python_version: str | None = Field(None, pattern=r"^3\.[0-9]{1,2}$")

    @field_validator("completion_time")
    @classmethod
    def _is_a_time(cls, time: str | int, info: ValidationInfo) -> str | int:
        # On the wire the format is free.
        return check_duration(time) if info.context and info.context.get("strict") else time


class JobDescription(_Wire):
    """A job on the wire: `{"job": {"name": …, "env": […], "execution": {…}}}`.

    Example:
        >>> document = {"job": {"name": "a", "execution": {"command": "true", "completionTime": 60}}}
        >>> JobDescription.from_wire(document).name
        'a'
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    env: tuple[Variable, ...] = Field((), max_length=1_000)
    execution: Execution
    model: Annotated[str, Field(max_length=512), AfterValidator(_check_model)] | None = Field(
        None,
        description="What the job hands on: a path or glob in its folder. Empty: nothing. By default its SavedModel.",
    )
    # None and not empty: an older service gets the field only if there are secrets.
    masks: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        None, max_length=1_000, description="Secrets: the job's log shows `***` in place of each."
    )
    rerun_of: str | None = Field(None, pattern=JOB_ID, description="The job of which this one is a rerun.")

    @model_validator(mode="before")
    @classmethod
    def _unwrapped(cls, document: Any) -> Any:
        return document["job"] if isinstance(document, dict) and "job" in document else document

    @classmethod
    def from_wire(cls, document: Any) -> JobDescription:
        """Validate a description; raises pydantic's ValidationError."""
        return cls.model_validate(document)

    @classmethod
    def of(
        cls, parameters: TrainingParameters, masks: Sequence[str] = (), task: Mapping[str, str] | None = None
    ) -> JobDescription:
        """Make the description of a job from its parameters.

        Args:
            parameters: The parameters.
            masks: Secrets in them, which are masked in the job's log.
            task: Variables that name the task of the job; one of the parameters with the same name wins.
        """
        env = {**(task or {}), **{each.name: each.text for each in (*parameters.env, *parameters.environment)}}
        return cls.model_validate(
            {
                "name": parameters.job_name,
                "env": [{"name": name, "value": value} for name, value in env.items()],
                "execution": {
                    "image": parameters.image,
                    "command": command_line(parameters),
                    "completion_time": parameters.completion_time,
                    "resources": parameters.resources.model_dump(exclude_none=True),
                    # Not a field of the old service; a command for Python 3 has `python3` in it.
                    "python_major_version": 2 if parameters.python_major_version == 2 else None,
                    "python_version": parameters.python_version,
                },
                "model": None if parameters.model == SAVED_MODEL else parameters.model or "",
                "masks": tuple(masks) or None,
            }
        )

    def to_wire(self) -> dict[str, Any]:
        """The document on the wire."""
        return {"job": self.model_dump(by_alias=True, exclude_none=True, mode="json")}


def command_line(parameters: TrainingParameters) -> str:
    """Return the command that installs the requirements and runs the script.

    Every variable of `env` becomes an argument, followed by `args`; all are quoted for the shell.

    Example:
        >>> command_line(TrainingParameters.read({
        ...     "job_name": "a", "image": "i", "completion_time": "1h", "script": "train.py",
        ...     "requirements": "numpy", "env": {"TRAIN_DATA": "adult data"}}))
        "pip3 install -r requirements.txt && python3 train.py '--train_data=adult data'"
    """
    pip, python = {2: ("pip", "python"), 3: ("pip3", "python3")}[parameters.python_major_version]
    module = script_module(parameters.script)
    script = ["-m", module] if module else [parameters.script_file]
    arguments = [f"{variable.argument}={variable.text}" for variable in parameters.env]
    run = shlex.join([*(parameters.launcher or [python]), *script, *arguments, *parameters.args])
    if parameters.has_requirements:
        return f"{shlex.join([pip, 'install', '-r', REQUIREMENTS_FILE])} && {run}"
    return run


class _Loader(yaml.CSafeLoader):
    """Parses an unquoted value as a number or boolean only if it would be written the same way again.

    All others are text: YAML 1.1 parses `3.10`, `no`, `010` and `22:30:00` as 3.1, false, 8 and 81000, and needs
    seconds of CPU time for a long number of base 60. No field needs a fraction as a number.
    """


_Loader.yaml_implicit_resolvers = {}
# 18 digits: what fits into 64 bits.
_WHOLE_NUMBER = re.compile(r"(0|-?[1-9][0-9]{0,17})\Z")
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", _WHOLE_NUMBER, list("-0123456789"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(true|false)\Z"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(~|null|)\Z"), ["~", "n", ""])


# A number in YAML 1.1, and the most characters of one.
_LIKE_A_NUMBER = re.compile(r"[-+0-9.:_eE]+")
_MAX_NUMBER = 1_000


# Limits far beyond any description: the parser's stack is finite, and a part takes about ten microseconds (a thousand
# variables are six thousand parts).
_MAX_DEPTH = 20
_MAX_PARTS = 50_000

_FIELDS = frozenset(
    name
    for model in (JobDescription, Execution, RequestedResources, Variable)
    for field, info in model.model_fields.items()
    for name in (field, info.alias)
)


def read_document(content: bytes) -> Any:
    """Parse YAML or JSON; unquoted values that are not numbers, booleans or null stay text.

    Raises:
        ValueError: It is neither; the text is the reason.

    >>> read_document(b"job: {since: 2026-11-26, python: 3.10, zip: 01067, epochs: 5}")
    {'job': {'since': '2026-11-26', 'python': '3.10', 'zip': '01067', 'epochs': 5}}
    """
    try:
        # JSON is YAML, except for tabs between tokens and surrogate pairs.
        return json.loads(content, parse_int=_number, parse_float=_number, parse_constant=str)
    except (ValueError, RecursionError):
        pass
    try:
        _check_structure(content)
        return yaml.load(content, Loader=_Loader)  # noqa: S506 - a subclass of the safe loader with fewer types
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        reason = f"{error.problem or error.context}{where}"
    except (yaml.YAMLError, ValueError) as error:
        reason = str(error).split("\n", maxsplit=1)[0]
    raise ValueError(reason)


def _check_structure(content: bytes) -> None:
    """Reject references, which can multiply without end, tags, and excessive depth, size and numbers."""
    depth = 0
    for number, event in enumerate(yaml.parse(content, Loader=yaml.CSafeLoader)):
        if number > _MAX_PARTS:
            raise ValueError(f"it has more than {_MAX_PARTS} parts")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"references are not supported (*{event.anchor})")
        if isinstance(event, yaml.ScalarEvent) and not event.style:
            _check_number(event.value)
        if tag := getattr(event, "tag", None):
            raise ValueError(f"tags are not supported ({tag})")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MAX_DEPTH:
            raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")


def _number(text: str) -> int | str:
    _check_number(text)
    return int(text) if _WHOLE_NUMBER.match(text) else text


def _check_number(scalar: str) -> None:
    if len(scalar) > _MAX_NUMBER and _LIKE_A_NUMBER.fullmatch(scalar):
        raise ValueError(f"a number has more than {_MAX_NUMBER} characters")


def validation_errors(error: ValidationError, around: frozenset[str] = frozenset()) -> list[str]:
    """List the errors of a description, one for each location.

    Args:
        error: The errors that pydantic found.
        around: Field names of the document around the description.
    """
    names = _FIELDS | around
    errors: dict[str, str] = {}
    for each in error.errors(include_url=False, include_context=False):
        # Besides the location, pydantic returns the attempted branch of a union.
        unknown = each["type"] == "extra_forbidden"
        parts = [part for part in each["loc"] if unknown or isinstance(part, int) or part in names]
        location = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).lstrip(".")
        text = "is unknown" if unknown else each["msg"].removeprefix("Value error, ")
        if each["type"] == "string_type" and isinstance(each["input"], (bool, int)):
            text += f": write it in quotes, '{json.dumps(each['input'])}'"
        errors.setdefault(location or "the document", text[0].lower() + text[1:])
    return [f"{location}: {text}" for location, text in errors.items()]
