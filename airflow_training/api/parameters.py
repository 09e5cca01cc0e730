"""The parameters of a training, named as in the trainingClient operator.

Python code uses Python's spelling (`job_name`), a `config` may use that of trainingClient (`jobName`). Validation
reports all errors at once, with the user's names.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from ast import literal_eval
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
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

SAVED_MODEL = "SavedModel"
"""The `model` of a job that leaves a SavedModel, wherever it is in the job folder."""

LONGEST_VALUE = 32_768
"""Bytes of the value of an environment variable: an argument, which it becomes as well, may have 128 KiB."""

# Of many, each of a job's files would take the service milliseconds.
_MOST_FOLDER_GLOBS = 10

# Parameters of trainingClient that belong in the connection, where Airflow encrypts and masks secrets.
CONNECTION_PARAMETERS = frozenset({"oauthClientId", "oauthClientSecret", "oauthTokenUrl", "jobAPI"})


def script_is_text(script: str) -> bool:
    """Whether a script is the text of a program, with two lines or more, and not a path or URI."""
    return "\n" in script


def script_module(script: str) -> str:
    """The module that a script names as Python's command line does, `-m package.module`; empty for other scripts."""
    found = re.fullmatch(r"-m\s+([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", script.strip())
    return found[1] if found else ""


def script_is_path(script: str) -> bool:
    """Whether a script is a path or URI, and neither the text of a program nor a module."""
    return not script_is_text(script) and not script_module(script)


def is_literal(value: Any) -> bool:
    """Whether a value is known when a Dag is parsed: no template, and nothing else that Airflow resolves later."""
    if isinstance(value, str):
        return not any(mark in value for mark in ("{{", "{%", "{#"))
    if isinstance(value, Mapping):
        return all(is_literal(part) for entry in value.items() for part in entry)
    if isinstance(value, (list, tuple)):
        return all(map(is_literal, value))
    return value is None or isinstance(value, (bool, int, float, bytes, timedelta, os.PathLike))


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


def _words(value: Any) -> Any:
    """Split a command line into its words, as a shell does; a list has the words already."""
    if not isinstance(value, str) or value.lstrip()[:1] in ("[", "{"):
        return _from_text(value)
    try:
        return shlex.split(value)
    except ValueError as error:
        raise ValueError(f"cannot be split into words: {error}") from None


def arguments(value: Any) -> Any:
    """Convert arguments to the words of a command line.

    >>> arguments({"learning-rate": 0.1, "layers": [64, 32], "verbose": True, "seed": None, "-v": False})
    ['--learning-rate=0.1', '--layers', '64', '32', '--verbose']
    """
    value = _words(value)
    if isinstance(value, Mapping):
        return [word for name, entry in value.items() for word in _option(str(name), entry)]
    return [_word(entry) for entry in value if entry is not None] if isinstance(value, (list, tuple)) else value


def _option(name: str, value: Any) -> list[str]:
    option = name if name.startswith("-") else f"--{name}"
    if not re.fullmatch(r"--?[^\W_][\w.:-]*", option):
        raise ValueError(f"has {name!r}, which is not the name of an option")
    if value is None or value is False:
        return []
    if value is True:
        return [option]
    if isinstance(value, (list, tuple)):
        return [option, *map(_word, value)]
    return [f"{option}={_word(value)}"] if option.startswith("--") else [option, _word(value)]


def _word(value: Any) -> str:
    if not isinstance(value, (str, bool, int, float)):
        raise ValueError(f"has {_shortened(value)}: each argument must be a string, a number or a boolean")
    return _text(_check_value(value))


def _text(value: str | float) -> str:
    """A value in the job: booleans as `true` and `false`, as in JSON."""
    return str(value).lower() if isinstance(value, bool) else str(value)


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


def check_model(model: str) -> str:
    """Return the name of a model in the job folder; raises ValueError for one that leads out of it."""
    path = PurePosixPath(model)
    if not path.parts or path.is_absolute() or ".." in path.parts or not model.isprintable():
        raise ValueError(
            f"must be a path or glob in the job folder, 'SavedModel', or None for the folder itself, not {model!r}"
        )
    if path.parts.count("**") > _MOST_FOLDER_GLOBS:
        raise ValueError(f"must have '**' at most {_MOST_FOLDER_GLOBS} times")
    return model


def _check_script(script: str) -> str:
    if "\0" in script or (script_is_path(script) and (PurePosixPath(script).name or "-").startswith("-")):
        raise ValueError(
            f"must be a path, a URI, the text of a program or '-m package.module', not {_shortened(script)}"
        )
    return script


def _check_variables(variables: tuple[EnvironmentVariable, ...]) -> tuple[EnvironmentVariable, ...]:
    counts = Counter(variable.argument for variable in variables)
    if repeated := sorted(argument for argument, count in counts.items() if count > 1):
        raise ValueError(f"gives {', '.join(repeated)} more than once: upper and lower case are the same argument")
    return variables


def _check_value(value: Any) -> Any:
    if isinstance(value, str):
        if "\0" in value:
            raise ValueError("contains a NUL character, which no variable or argument can contain")
        if (size := len(value.encode(errors="surrogatepass"))) > LONGEST_VALUE:
            raise ValueError(f"has {size} bytes; the limit is {LONGEST_VALUE}: put it into a file of `data`")
    return value


def _not_a_boolean(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(f"must be a whole number, not {value}")
    return value


Scalar: TypeAlias = Annotated[StrictStr | StrictBool | StrictInt | StrictFloat, BeforeValidator(_check_value)]
WholeNumber = Annotated[int, BeforeValidator(_not_a_boolean)]
Word = Annotated[str, Field(min_length=1), BeforeValidator(_check_value)]
FileName = Annotated[str, AfterValidator(check_file_name)]


class _Schema(BaseModel):
    # The description of a field completes the sentence "… must be …".
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


class EnvironmentVariable(_Schema):
    """An environment variable of the job.

    In `env`, it is an argument of the script as well: `TEST_DATA` is the variable `TEST_DATA` and `--test_data=…`.
    """

    name: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256, description="letters, digits and '_', 256 at most"
    )
    value: Scalar = Field(description="a string, a number or a boolean")

    @property
    def text(self) -> str:
        """The value in the job."""
        return _text(self.value)

    @property
    def argument(self) -> str:
        """The name of the script's argument, if it is in `env`."""
        return f"--{self.name.lower()}"


class _StrictResources(RequestedResources):
    """Requested resources; unknown names and booleans are errors."""

    model_config = ConfigDict(extra="forbid")

    _reject_booleans = field_validator("*", mode="before")(_not_a_boolean)


class TrainingParameters(_Schema):
    """The parameters of a training; `TrainingOperator` describes each.

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
    script: Annotated[str, AfterValidator(_check_script)] = Field(
        description="a path, a URI, the text of a program or '-m package.module'"
    )
    source_dir: Any = None
    launcher: Annotated[tuple[Word, ...], BeforeValidator(_words)] = Field(
        (), description="a command such as 'torchrun --nproc-per-node 2': a string or a list"
    )
    args: Annotated[tuple[str, ...], BeforeValidator(arguments)] = Field(
        (), description="a command line, a list of words or a mapping of options"
    )
    environment: Annotated[tuple[EnvironmentVariable, ...], BeforeValidator(variables)] = Field(
        (), description="a list of name/value objects or a mapping"
    )
    python_version: str | None = Field(None, pattern=r"^3\.[0-9]{1,2}$", description="a version such as '3.12'")
    model: Annotated[str, Field(max_length=512), AfterValidator(check_model)] | None = Field(
        SAVED_MODEL, description="a path or glob in the job folder, 'SavedModel' or None"
    )
    data: Annotated[dict[FileName, Any], BeforeValidator(_from_text)] = Field(
        {}, validate_default=True, description="a mapping of file names to paths, URIs, directories or bytes"
    )

    @field_validator("completion_time")
    @classmethod
    def _is_a_time(cls, time: str | int, info: ValidationInfo) -> str | int:
        limited = info.context and info.context.get("limited")
        # Times like "30m" or 1800, as most in Dag files are, need no parser.
        if limited or re.fullmatch(r"[1-9][0-9]{0,5}[dhms]?", str(time)):
            return time
        from airflow_training.api.durations import check_duration  # noqa: PLC0415

        try:
            return check_duration(time)
        except ValueError as error:
            raise ValueError(
                f"{error} (sent unchanged if the task has an execution_timeout, for services with their own format)"
            ) from None

    @field_validator("source_dir")
    @classmethod
    def _has_the_script(cls, folder: Any, info: ValidationInfo) -> Any:
        if isinstance(folder, (bytes, bool, int, float, list, tuple, dict)) or folder == "":
            raise ValueError(f"must be the path or URI of a folder, not {_shortened(folder)}")
        script = info.data.get("script")
        # An invalid script has an error of its own.
        if script is not None and script_is_path(script):
            try:
                check_file_name(script)
            except ValueError:
                raise ValueError(f"requires a script in it, by its relative path, not {_shortened(script)}") from None
        return folder

    @field_validator("python_version")
    @classmethod
    def _is_no_python_2(cls, version: str | None, info: ValidationInfo) -> str | None:
        if version and info.data.get("python_major_version") == 2:
            raise ValueError(f"must not be {version!r} if python_major_version is 2")
        return version

    @field_validator("environment")
    @classmethod
    def _has_names_of_its_own(
        cls, given: tuple[EnvironmentVariable, ...], info: ValidationInfo
    ) -> tuple[EnvironmentVariable, ...]:
        counts = Counter(variable.name for variable in (*info.data.get("env", ()), *given))
        if repeated := sorted(name for name, count in counts.items() if count > 1):
            raise ValueError(f"gives {', '.join(repeated)} more than once, or env does too")
        return given

    @field_validator("data")
    @classmethod
    def _suits_the_other_files(cls, data: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        for name, value in data.items():
            if value is None or isinstance(value, (bool, int, float, list, tuple, dict)) or value == "":
                raise ValueError(f"{name!r} must be a path, a URI, a directory or bytes, not {_shortened(value)}")
        source_dir = info.data.get("source_dir")
        own = {_file_of(info.data.get("script", ""), source_dir), REQUIREMENTS_FILE}
        if taken := sorted(own & data.keys()):
            raise ValueError(f"must not contain {', '.join(taken)}: that is the name of the job's own file")
        # The files of a folder of code are not known before the upload.
        if source_dir is None and (missing := missing_files(info.data.get("requirements", ""), data)):
            raise ValueError("; ".join(missing))
        return data

    @property
    def script_file(self) -> str:
        """The script's name in the job folder; empty for a module."""
        return _file_of(self.script, self.source_dir)

    @property
    def has_requirements(self) -> bool:
        """Whether the job installs packages before its script starts."""
        return bool(self.requirements.strip())

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
            return cls.model_validate(_given(values), context={"limited": limited})
        except ValidationError as error:
            raise InvalidParameters(_sentences(cls, error.errors(include_url=False))) from error

    @classmethod
    def certain_errors(cls, values: Mapping[str, Any], *, limited: bool = False) -> list[str]:
        """List the errors that are certain before templates are rendered: those of literal values.

        Args:
            values: The parameters, in which some values may be known only when the task runs.
            limited: As for `read`.

        >>> TrainingParameters.certain_errors(
        ...     {"job_name": "train {{ ds }}", "image": "i", "completion_time": "1h", "script": "train.py",
        ...      "resources": {"cpus": "{{ params.cpus }}", "gpus": -1}})
        ['resources.gpus must be a whole number, 0 or more, not -1']
        """
        # Requirements take longest to check, and may name files that are known only at run time.
        given = _given({**values, "requirements": None})
        try:
            cls.model_validate(given, context={"limited": limited})
        except ValidationError as error:
            return _sentences(cls, [each for each in error.errors(include_url=False) if _is_certain(each)])
        return []


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    # The model may be None: then the job leaves none.
    return {name: value for name, value in values.items() if value is not None or name == "model"}


def _is_certain(error: ErrorDetails) -> bool:
    """Whether nothing that Airflow resolves at run time can correct an error. Names are not rendered."""
    return is_literal(error["loc"]) and (error["type"] in ("missing", "extra_forbidden") or is_literal(error["input"]))


def _file_of(script: str, source_dir: Any) -> str:
    if script_module(script):
        return ""
    if script_is_text(script):
        return INLINE_SCRIPT_FILE
    return PurePosixPath(script).name if source_dir is None else str(PurePosixPath(script))


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
