"""A training service and its credentials from a profile or from the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any

import typer
from pydantic import Field, ValidationError

from airflow_training.client.settings import ClientSettings, ConnectionFields, Url
from airflow_training.exceptions import InvalidConnection

PREFIX = "TRAINING_"
"""The prefix of the environment variables that correspond to the fields of a profile."""

DEFAULT_PROFILE = "default"

_READABLE_BY_OTHERS = 0o077


class _Profile(ConnectionFields):
    """A training service, with the field names of Airflow's connection."""

    url: Url = Field(
        pattern=r"^https?://[^\s/@?#]+/?$",
        description="must be a URL such as https://training.example.com, without a path",
    )
    client_id: str = Field(min_length=1, description="is empty")
    client_secret: str = Field(min_length=1, description="is empty")


def profiles_file() -> Path:
    """The file of the profiles."""
    return Path(typer.get_app_dir("airflow-training")) / "profiles.ini"


def from_environment() -> ClientSettings | None:
    """Read a service from the environment; None if `TRAINING_URL` is not set.

    Raises:
        InvalidConnection: A variable is missing or invalid.
    """
    if not os.environ.get(f"{PREFIX}URL"):
        return None
    names = {name: f"{PREFIX}{name.upper()}" for name in _Profile.model_fields}
    values = {name: os.environ[variable] for name, variable in names.items() if os.environ.get(variable)}
    return _read(values, "The environment", names)


def has_default_profile() -> bool:
    """Whether the default profile exists, or the file is unreadable, which `from_profile` reports."""
    try:
        lines = profiles_file().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    except (OSError, UnicodeError):
        return True
    return f"[{DEFAULT_PROFILE}]" in map(str.strip, lines)


def from_profile(name: str) -> ClientSettings:
    """Read a profile.

    Raises:
        InvalidConnection: It does not exist or is invalid, or other users can read the file.
    """
    file = profiles_file()
    profiles = ConfigParser(interpolation=None, default_section="")
    try:
        if file.stat().st_mode & _READABLE_BY_OTHERS:
            raise InvalidConnection(
                f"{file} contains secrets and is readable by other users: chmod 600 {file}", code="AT-124"
            )
        profiles.read_string(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidConnection(f"There is no profile {name!r}: {file} does not exist.", code="AT-122") from error
    except (OSError, UnicodeError) as error:
        raise InvalidConnection(f"The profiles cannot be read from {file}: {error}.", code="AT-125") from error
    except Error as error:
        # The message quotes the line, which may contain a secret.
        line = getattr(error, "lineno", None) or next((n for n, _ in getattr(error, "errors", ())), "?")
        raise InvalidConnection(
            f"Line {line} of {file} cannot be parsed: a profile is a line [name] followed by lines such as"
            " client_id = me.",
            code="AT-126",
        ) from None
    if not profiles.has_section(name):
        existing = ", ".join(profiles.sections()) or "none"
        raise InvalidConnection(
            f"There is no profile {name!r} in {file}; existing profiles: {existing}.", code="AT-123"
        )
    return _read(dict(profiles[name]), f"The profile {name!r} in {file}")


def _read(values: Mapping[str, str], where: str, names: Mapping[str, str] | None = None) -> ClientSettings:
    try:
        profile = _Profile.model_validate(values)
    except ValidationError as error:
        problems = [_in_words(problem, names or {}) for problem in error.errors(include_input=False)]
        raise InvalidConnection(
            f"{where} does not define a training service: {'; '.join(problems)}.", code="AT-127"
        ) from None
    return profile.settings(profile.url.rstrip("/"), profile.client_id, profile.client_secret)


def _in_words(problem: Any, names: Mapping[str, str]) -> str:
    name = str(problem["loc"][0])
    return f"{names.get(name, name)} {_WORDS.get(problem['type']) or _Profile.model_fields[name].description}"


_WORDS = {"missing": "is missing", "extra_forbidden": "is unknown"}
