"""The parameters of a training, named as in the trainingClient operator.

Python code uses Python's spelling (`job_name`), a `config` may use that of trainingClient (`jobName`). Validation
reports all errors at once, with the user's names.
"""

from __future__ import annotations

import json
from ast import literal_eval
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from airflow_training.api.requirements import REQUIREMENTS_FILE, check_requirements, missing_files
from airflow_training.api.resources import RequestedResources
from airflow_training.exceptions import InvalidParameters

INLINE_SCRIPT_FILE = "train.py"

LONGEST_VALUE = 32_768
"""Bytes of the value of an environment variable: an argument, which it becomes as well, may have 128 KiB."""

# Parameters of trainingClient that belong in the connection, where Airflow encrypts and masks secrets.
CONNECTION_PARAMETERS = frozenset({"oauthClientId", "oauthClientSecret", "oauthTokenUrl", "jobAPI"})


def script_is_text(script: str) -> bool:
    """Whether a script is the text of a program, with two lines or more, and not a path or URI."""
    return "\n" in script


def script_file(script: str) -> str:
    """The name of the script in the job folder."""
    return INLINE_SCRIPT_FILE if script_is_text(script) else PurePosixPath(script).name


def _from_text(value: Any) -> Any:
    """Parse a list or an object in JSON or Python syntax: templates produce either."""
    if not isinstance(value, str):
        return value
    try:
        # A number with a point stays as it is written: the variable 3.10 is not 3.1.
        return json.loads(value, parse_float=str)
    except json.JSONDecodeError as error:
        try:
            return literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"is neither JSON ({error.msg} at character {error.pos}) nor a Python value") from None


def variables(value: Any) -> Any:
    """Convert a mapping to a list of name/value objects, as in Airflow's other operators."""
    value = _from_text(value)
    if isinstance(value, Mapping):
        return [{"name": name, "value": entry} for name, entry in value.items()]
    return value


def _requirement_lines(value: Any) -> Any:
    return "\n".join(value) if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value) else value


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def check_file_name(name: str) -> str:
    """Return a normalized file name for the job folder; raises ValueError for an invalid one."""
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or not name.isprintable():
        raise ValueError(f"{name!r} is not a file name: use a relative path such as 'data/train.csv', without '..'")
    return str(path)


def _check_script(script: str) -> str:
    if "\0" in script or not script_file(script) or script_file(script).startswith("-"):
        raise ValueError(f"must be a path, a URI or the text of a program, not {_shortened(script)}")
    return script


def _check_data(data: dict[str, Any]) -> dict[str, Any]:
    for name, value in data.items():
        if value is None or isinstance(value, (bool, int, float, list, tuple, dict)) or value == "":
            raise ValueError(f"{name!r} must be a path, a URI, a directory or bytes, not {_shortened(value)}")
    return data


def _check_variables(variables: tuple[EnvironmentVariable, ...]) -> tuple[EnvironmentVariable, ...]:
    counts = Counter(variable.argument for variable in variables)
    if repeated := sorted(argument for argument, count in counts.items() if count > 1):
        raise ValueError(f"gives {', '.join(repeated)} more than once: upper and lower case are the same argument")
    return variables


def _no_nul(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("contains a NUL character, which no environment variable can contain")
    return value


def _check_length(value: Any) -> Any:
    if isinstance(value, str) and (size := len(value.encode(errors="surrogatepass"))) > LONGEST_VALUE:
        raise ValueError(f"has {size} bytes; the limit is {LONGEST_VALUE}: put it into a file of `data`")
    return value


def _not_a_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a whole number, not {value}")
    return value


Scalar: TypeAlias = Annotated[
    StrictStr | StrictBool | StrictInt | StrictFloat, BeforeValidator(_no_nul), AfterValidator(_check_length)
]
WholeNumber = Annotated[int, BeforeValidator(_not_a_boolean)]
FileName = Annotated[str, AfterValidator(check_file_name)]


class _Schema(BaseModel):
    # The description of a field completes the sentence "… must be …".
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class EnvironmentVariable(_Schema):
    """An environment variable of the job, which is an argument of the script as well.

    The script gets `TEST_DATA` as the variable `TEST_DATA` and as `--test_data=…`.
    """

    name: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256, description="letters, digits and '_', 256 at most"
    )
    value: Scalar = Field(description="a string, a number or a boolean")

    @property
    def text(self) -> str:
        """The value in the job: booleans as `true` and `false`, as in JSON."""
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)

    @property
    def argument(self) -> str:
        """The name of the script's argument."""
        return f"--{self.name.lower()}"


class _StrictResources(RequestedResources):
    """Requested resources; unknown names and booleans are errors."""

    model_config = ConfigDict(extra="forbid")

    _reject_booleans = field_validator("*", mode="before")(_not_a_boolean)


class TrainingParameters(_Schema):
    """The parameters of a training.

    Attributes:
        job_name: Name of the job: letters, digits, `.`, `_`, `-`; at most 63 characters.
        env: Environment variables, each also an argument of the script, `--lower_case=value`. A list of name/value
            objects, a mapping, or either as JSON.
        image: The container image. Runners without containers ignore it and note that in the job's log.
        completion_time: The time limit of the job: "20h", "90m", 3600.
        resources: cpus, gpus (whole numbers) and memory (MB); without `memory` the service decides.
        requirements: Python requirements of the script, as in a requirements.txt.
        python_major_version: 2 runs `pip` and `python`, 3 runs `pip3` and `python3`.
        version: Version of the job API; by default that of the connection.
        script: The training script: a path, a URI, or the text of the program, which has two lines or more.
        data: The input of the script: file name in the job folder → path, URI, directory or bytes.

    Example:
        >>> parameters = TrainingParameters.read(
        ...     {"job_name": "census", "image": "tensorflow/tensorflow:2.21.0", "completion_time": "1h",
        ...      "script": "train.py", "env": {"EPOCHS": 5}}
        ... )
        >>> parameters.env[0].text
        '5'
    """

    job_name: str = Field(
        # The name is part of a folder name, a command line and URLs.
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="1 to 63 letters, digits, '.', '_' or '-', a letter or digit first",
    )
    env: Annotated[tuple[EnvironmentVariable, ...], BeforeValidator(variables), AfterValidator(_check_variables)] = (
        Field((), description="a list of name/value objects or a mapping")
    )
    image: str = Field(pattern=r"^\S{1,512}$", description="the name of a container image")
    completion_time: Annotated[str, Field(min_length=1, max_length=64)] | Annotated[WholeNumber, Field(ge=1)] = Field(
        description="a time such as '20h', or a number of seconds"
    )
    resources: Annotated[_StrictResources, BeforeValidator(_from_text)] = Field(
        _StrictResources(), description="a mapping such as {'cpus': 1, 'gpus': 0, 'memory': 2048}"
    )
    requirements: Annotated[str, BeforeValidator(_requirement_lines), AfterValidator(check_requirements)] = Field(
        "", description="requirements as pip reads them: a string or a list"
    )
    python_major_version: Annotated[Literal[2, 3], BeforeValidator(_number)] = Field(3, description="2 or 3")
    version: str | None = Field(None, pattern=r"^v[0-9]+$", description="a version of the job API such as 'v2'")
    script: Annotated[str, AfterValidator(_check_script)] = Field(description="a path, a URI or the text of a program")
    data: Annotated[dict[FileName, Any], BeforeValidator(_from_text), AfterValidator(_check_data)] = Field(
        {}, validate_default=True, description="a mapping of file names to paths, URIs, directories or bytes"
    )

    @field_validator("completion_time")
    @classmethod
    def _is_a_time(cls, time: str | int, info: ValidationInfo) -> str | int:
        # Parsing a Dag file does not need it.
        from airflow_training.api.durations import check_duration  # noqa: PLC0415

        try:
            return check_duration(time)
        except ValueError as error:
            if info.context and info.context.get("limited"):
                return time
            raise ValueError(
                f"{error} (sent unchanged if the task has an execution_timeout, for services with their own format)"
            ) from None

    @field_validator("data")
    @classmethod
    def _keeps_clear_of_the_job_files(cls, data: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if taken := sorted({script_file(info.data.get("script", "")), REQUIREMENTS_FILE} & data.keys()):
            raise ValueError(f"must not contain {', '.join(taken)}: that is the name of the job's own file")
        return data

    @field_validator("data")
    @classmethod
    def _holds_what_the_requirements_name(cls, data: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if missing := missing_files(info.data.get("requirements", ""), data):
            raise ValueError("; ".join(missing))
        return data

    @property
    def folder_files(self) -> tuple[str, ...]:
        """Names of the files in the job folder before the job starts."""
        requirements = (REQUIREMENTS_FILE,) if self.requirements.strip() else ()
        return (script_file(self.script), *requirements, *self.data)

    @classmethod
    def read(cls, values: Mapping[str, Any], *, limited: bool = False) -> TrainingParameters:
        """Validate parameters by their Python names; None means not given.

        Args:
            values: The parameters.
            limited: Whether the job has another time limit, so that the completion time may have a format that only the
                service knows.

        Raises:
            InvalidParameters: Lists all errors.
        """
        try:
            given = {name: value for name, value in values.items() if value is not None}
            return cls.model_validate(given, context={"limited": limited})
        except ValidationError as error:
            raise InvalidParameters(_sentences(cls, error.errors(include_url=False))) from error


def overridden(parameters: Mapping[str, Any], config: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Override parameters by a configuration at run time, like trainingClient's config port.

    Args:
        parameters: By their Python names.
        config: Overrides, a mapping or JSON; names in either spelling.

    Raises:
        InvalidParameters: The configuration cannot be parsed, or has a name that belongs in the connection.

    >>> overridden({"job_name": "a", "image": "b"}, {"jobName": "c"})
    {'job_name': 'c', 'image': 'b'}
    """
    try:
        config = _from_text(config) if config else {}
    except ValueError as error:
        raise InvalidParameters([f"config {error}"]) from error
    if not isinstance(config, Mapping):
        raise InvalidParameters([f"config must be a mapping, not {_shortened(config)}"])
    if refused := sorted(CONNECTION_PARAMETERS & config.keys()):
        raise InvalidParameters([f"config must not contain {', '.join(refused)}: that belongs in the connection"])
    python_names = {to_camel(name): name for name in TrainingParameters.model_fields}
    return {**parameters, **{python_names.get(name, name): value for name, value in config.items()}}


def _sentences(model: type[BaseModel], errors: list[ErrorDetails]) -> list[str]:
    """One sentence for each location with an error: the location, the requirement and the value."""
    sentences: dict[str, str] = {}
    for error in errors:
        place, field = _place(model, error["loc"])
        kind = error["type"]
        if kind == "missing":
            sentence = f"{place} is missing"
        elif kind == "extra_forbidden":
            sentence = f"{place} is unknown"
        elif kind == "value_error":
            sentence = f"{place} {error['msg'].removeprefix('Value error, ')}"
        elif kind == "less_than_equal":
            sentence = f"{place} must be {error['ctx']['le']:,} or less, not {_shortened(error['input'])}"
        else:
            sentence = f"{place} must be {field.description}, not {_shortened(error['input'])}"
        sentences.setdefault(place, sentence)
    return list(sentences.values())


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, FieldInfo]:
    """Return a location as users write it, `env[0].name`, and its field."""
    fields, place, found = model.model_fields, "", FieldInfo()
    for part in location:
        name = next((n for n, field in fields.items() if part in (n, field.alias)), None)
        if name:
            place, found = (f"{place}.{name}" if place else name), fields[name]
            inner = [t for t in _types(found.annotation) if isinstance(t, type) and issubclass(t, BaseModel)]
            fields = inner[0].model_fields if inner else {}
        elif isinstance(part, int):
            place = f"{place}[{part}]"
        elif not place or fields:
            place, fields = (f"{place}.{part}" if place else str(part)), {}
        # Other parts are the attempted branch of a union, or the name of a file.
    return place, found


def _types(annotation: Any) -> list[Any]:
    return [annotation, *(inner for argument in get_args(annotation) for inner in _types(argument))]


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
