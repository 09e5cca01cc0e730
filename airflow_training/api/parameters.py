"""What a user asks for: the parameters of a training, as the trainingClient operator named them.

Python code writes them in Python's spelling (`job_name`), a `config` that comes from elsewhere may write
them as trainingClient did (`jobName`). Validation reports all mistakes at once, in words of the user's.
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
from airflow_training.exceptions import InvalidParameters

INLINE_SCRIPT_FILE = "train.py"

LONGEST_VALUE = 32_768
"""Bytes that the value of an environment variable may have: an argument made of it may have 128 KiB."""

# trainingClient took these beside the job's parameters. In Airflow they belong to the connection, where
# secrets are kept encrypted and masked.
CONNECTION_PARAMETERS = frozenset({"oauthClientId", "oauthClientSecret", "oauthTokenUrl", "jobAPI"})


def script_is_text(script: str) -> bool:
    """Whether a script is the program itself, of two lines or more, and not the place where it lies."""
    return "\n" in script


def script_file(script: str) -> str:
    """Name of the script in the job folder."""
    return INLINE_SCRIPT_FILE if script_is_text(script) else PurePosixPath(script).name


def _from_text(value: Any) -> Any:
    """Read a list or an object from text, as JSON or as Python writes it: templates deliver either."""
    if not isinstance(value, str):
        return value
    try:
        # A number with a point stays as it was written: the variable 3.10 is not 3.1.
        return json.loads(value, parse_float=str)
    except json.JSONDecodeError as error:
        try:
            return literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"is neither JSON ({error.msg} at character {error.pos}) nor a Python value") from None


def variables(value: Any) -> Any:
    """Take a mapping for a list of name/value objects, as Airflow's other operators do."""
    value = _from_text(value)
    if isinstance(value, Mapping):
        return [{"name": name, "value": entry} for name, entry in value.items()]
    return value


def _requirement_lines(value: Any) -> Any:
    return "\n".join(value) if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value) else value


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isdecimal() else value


def check_file_name(name: str) -> str:
    """Return the name of a file in the job folder; raises ValueError where there can be none of that name."""
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
        raise ValueError(f"gives {', '.join(repeated)} more than once: upper and lower case are one argument")
    return variables


def _no_nul(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("holds a NUL character, which no environment variable can hold")
    return value


def _of_a_fit_length(value: Any) -> Any:
    if isinstance(value, str) and (size := len(value.encode(errors="surrogatepass"))) > LONGEST_VALUE:
        raise ValueError(f"has {size} bytes and may have {LONGEST_VALUE}: put it into a file of `data`")
    return value


def _not_a_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a whole number, not {value}")
    return value


Scalar: TypeAlias = Annotated[
    StrictStr | StrictBool | StrictInt | StrictFloat, BeforeValidator(_no_nul), AfterValidator(_of_a_fit_length)
]
WholeNumber = Annotated[int, BeforeValidator(_not_a_truth_value)]
FileName = Annotated[str, AfterValidator(check_file_name)]


class _Vocabulary(BaseModel):
    # A description tells what the value must be: it completes the sentence "… must be …".
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class EnvironmentVariable(_Vocabulary):
    """One variable of the job's environment; it is an argument of the script as well.

    `TEST_DATA` reaches the script as the variable `TEST_DATA` and as `--test_data=…`.
    """

    name: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256, description="letters, digits and '_', 256 at most"
    )
    value: Scalar = Field(description="a text, a number or a truth value")

    @property
    def text(self) -> str:
        """The value as the job sees it: truth values as `true` and `false`, as in JSON."""
        return str(self.value).lower() if isinstance(self.value, bool) else str(self.value)

    @property
    def argument(self) -> str:
        """The script's argument of that name."""
        return f"--{self.name.lower()}"


class Resources(_Vocabulary):
    """What a job needs of a machine."""

    cpus: WholeNumber = Field(1, ge=1, description="a whole number, 1 or more")
    gpus: WholeNumber = Field(0, ge=0, description="a whole number, 0 or more")
    memory: WholeNumber | None = Field(None, ge=1, description="a whole number of MB, 1 or more")


class TrainingParameters(_Vocabulary):
    """All that describes one training.

    Attributes:
        job_name: Internal name of the job: letters, digits, `.`, `_`, `-`; at most 63 characters.
        env: Environment variables; each is passed to the script as `--lower_case=value` too. A list of
            name/value objects, a mapping, or either as JSON.
        image: Container image to run in. Runners without containers ignore it and say so in the job's log.
        completion_time: Time allotted to the job: "20h", "90m", 3600.
        resources: cpus, gpus (whole numbers) and memory (MB); without `memory` the service decides.
        requirements: Python requirements of the script, as in a requirements.txt.
        python_major_version: 2 runs `pip` and `python`, 3 runs `pip3` and `python3`.
        version: Version of the job API; that of the connection where it is not given.
        script: The training script: a path, a URI, or the program text itself, which has two lines or more.
        data: What the script reads: file name in the job folder → path, URI, directory or bytes.

    Example:
        >>> parameters = TrainingParameters.read(
        ...     {"job_name": "census", "image": "tensorflow/tensorflow:2.21.0", "completion_time": "1h",
        ...      "script": "train.py", "env": {"EPOCHS": 5}}
        ... )
        >>> parameters.env[0].text
        '5'
    """

    job_name: str = Field(
        # The name becomes a part of a folder's name, of a command line and of URLs.
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
    resources: Annotated[Resources, BeforeValidator(_from_text)] = Field(
        Resources(), description="a mapping such as {'cpus': 1, 'gpus': 0, 'memory': 2048}"
    )
    requirements: Annotated[str, BeforeValidator(_requirement_lines), AfterValidator(check_requirements)] = Field(
        "", description="requirements as pip reads them: a text or a list"
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
        # A Dag's file is read again and again, and validates nothing.
        from airflow_training.api.durations import check_duration  # noqa: PLC0415

        try:
            return check_duration(time)
        except ValueError as error:
            if info.context and info.context.get("limited"):
                return time
            raise ValueError(
                f"{error} (sent as it is if the task has an execution_timeout, for a service with words of its own)"
            ) from None

    @field_validator("data")
    @classmethod
    def _keeps_clear_of_the_job_files(cls, data: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if taken := sorted({script_file(info.data.get("script", "")), REQUIREMENTS_FILE} & data.keys()):
            raise ValueError(f"must not hold {', '.join(taken)}: that is the name of the job's own file")
        return data

    @field_validator("data")
    @classmethod
    def _holds_what_the_requirements_name(cls, data: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        if missing := missing_files(info.data.get("requirements", ""), data):
            raise ValueError("; ".join(missing))
        return data

    @property
    def folder_files(self) -> tuple[str, ...]:
        """Names of the files that the job folder holds before the job starts."""
        requirements = (REQUIREMENTS_FILE,) if self.requirements.strip() else ()
        return (script_file(self.script), *requirements, *self.data)

    @classmethod
    def read(cls, values: Mapping[str, Any], *, limited: bool = False) -> TrainingParameters:
        """Validate parameters given by their Python names; None stands for "not given".

        Args:
            values: The parameters.
            limited: Whether something else ends the job in time, so that a completion time may be in words that only
                the service knows.

        Raises:
            InvalidParameters: With every mistake in it.
        """
        try:
            given = {name: value for name, value in values.items() if value is not None}
            return cls.model_validate(given, context={"limited": limited})
        except ValidationError as error:
            raise InvalidParameters(_in_words(cls, error.errors(include_url=False, include_context=False))) from error


def overridden(parameters: Mapping[str, Any], config: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Override parameters by a configuration that comes at run time, as trainingClient's config port did.

    Args:
        parameters: By their Python names.
        config: Overrides, a mapping or JSON; names in either spelling.

    Raises:
        InvalidParameters: The configuration cannot be read, or it holds what belongs in the connection.

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
        raise InvalidParameters([f"config must not hold {', '.join(refused)}: that belongs in the connection"])
    python_names = {to_camel(name): name for name in TrainingParameters.model_fields}
    return {**parameters, **{python_names.get(name, name): value for name, value in config.items()}}


def _in_words(model: type[BaseModel], mistakes: list[ErrorDetails]) -> list[str]:
    """One sentence for each place with a mistake: where, what must be there, what is there."""
    sentences: dict[str, str] = {}
    for mistake in mistakes:
        place, field = _place(model, mistake["loc"])
        kind = mistake["type"]
        if kind == "missing":
            sentence = f"{place} is missing"
        elif kind == "extra_forbidden":
            sentence = f"{place} is unknown"
        elif kind == "value_error":
            sentence = f"{place} {mistake['msg'].removeprefix('Value error, ')}"
        else:
            sentence = f"{place} must be {field.description}, not {_shortened(mistake['input'])}"
        sentences.setdefault(place, sentence)
    return list(sentences.values())


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, FieldInfo]:
    """Write a place as a user would, `env[0].name`, and find the field there."""
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
        # What remains is the branch of a union that pydantic tried, or the key of a file.
    return place, found


def _types(annotation: Any) -> list[Any]:
    return [annotation, *(inner for argument in get_args(annotation) for inner in _types(argument))]


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
