"""Where the commands find a training service and its credentials: in a profile, or in the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from configparser import ConfigParser, Error
from pathlib import Path
from typing import Any

import typer
from pydantic import Field, ValidationError

from airflow_training.client.settings import FORMS, Address, ClientSettings, ConnectionFields
from airflow_training.exceptions import InvalidConnection

PREFIX = "TRAINING_"
"""What the variables of the environment begin with that hold what a profile holds."""

PROFILE_BY_DEFAULT = "default"

_READABLE_BY_OTHERS = 0o077


class _Profile(ConnectionFields):
    """A training service, in the words of Airflow's connection."""

    url: Address = Field(pattern=r"^https?://[^\s/@?#]+/?$")
    client_id: str = Field(min_length=1)
    client_secret: str = Field(min_length=1)

    def client_settings(self) -> ClientSettings:
        return self.settings(self.url.rstrip("/"), self.client_id, self.client_secret)


def profiles_file() -> Path:
    """Where the profiles are."""
    return Path(typer.get_app_dir("airflow-training")) / "profiles.ini"


def of_environment() -> ClientSettings | None:
    """Read a service from the environment; None where `TRAINING_URL` is not set.

    Raises:
        InvalidConnection: Something is missing there or wrong.
    """
    if not os.environ.get(f"{PREFIX}URL"):
        return None
    names = {name: f"{PREFIX}{name.upper()}" for name in _Profile.model_fields}
    values = {name: os.environ[variable] for name, variable in names.items() if os.environ.get(variable)}
    return _read(values, "The environment", names)


def has_default_profile() -> bool:
    """Whether there is a profile for who names none; a file that cannot be read is told of by `of_profile`."""
    try:
        lines = profiles_file().read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    except (OSError, UnicodeError):
        return True
    return f"[{PROFILE_BY_DEFAULT}]" in map(str.strip, lines)


def of_profile(name: str) -> ClientSettings:
    """Read a profile.

    Raises:
        InvalidConnection: There is none of that name, something in it is missing or wrong, or others may read the file.
    """
    file = profiles_file()
    profiles = ConfigParser(interpolation=None, default_section="")
    try:
        if file.stat().st_mode & _READABLE_BY_OTHERS:
            raise InvalidConnection(f"{file} holds secrets, and others may read it: chmod 600 {file}", code="AT-124")
        profiles.read_string(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidConnection(f"There is no profile {name!r}: {file} does not exist.", code="AT-122") from error
    except (OSError, UnicodeError) as error:
        raise InvalidConnection(f"The profiles cannot be read from {file}: {error}.", code="AT-125") from error
    except Error as error:
        # Its text quotes the line, which may hold a secret.
        line = getattr(error, "lineno", None) or next((n for n, _ in getattr(error, "errors", ())), "?")
        raise InvalidConnection(
            f"Line {line} of {file} cannot be read: a profile is a line [name], and lines such as client_id = me.",
            code="AT-126",
        ) from None
    if not profiles.has_section(name):
        there = ", ".join(profiles.sections()) or "none"
        raise InvalidConnection(f"There is no profile {name!r} in {file}; there are: {there}.", code="AT-123")
    return _read(dict(profiles[name]), f"The profile {name!r} in {file}")


def _read(values: Mapping[str, str], where: str, names: Mapping[str, str] | None = None) -> ClientSettings:
    try:
        return _Profile.model_validate(values).client_settings()
    except ValidationError as error:
        mistakes = [_in_words(mistake, names or {}) for mistake in error.errors(include_input=False)]
        raise InvalidConnection(
            f"{where} does not name a training service: {'; '.join(mistakes)}.", code="AT-127"
        ) from None


def _in_words(mistake: Any, names: Mapping[str, str]) -> str:
    name = str(mistake["loc"][0])
    said = _WORDS.get(mistake["type"]) or _MUST_BE.get(name) or "is not valid"
    return f"{names.get(name, name)} {said}"


_WORDS = {"missing": "is missing", "extra_forbidden": "is unknown"}
_MUST_BE = {
    **FORMS,
    "url": "must be an address such as https://training.example.com, without a path",
    "client_id": "is empty",
    "client_secret": "is empty",
}
