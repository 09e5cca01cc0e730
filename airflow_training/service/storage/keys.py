"""Keys of the S3 endpoint: new ones, and those that are lent to jobs on other machines."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

from airflow_training.service.durable_files import write_json
from airflow_training.service.storage.auth_proxy import lent_file


def lend(keys_file: Path, backend: dict[str, Any]) -> tuple[str, str]:
    """Make an access key and its secret, for a job that reaches its files over S3; good until it is taken back."""
    access_key, secret_key = new_key()
    file = lent_file(keys_file, access_key)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_json(file, {"secret": secret_key, "backend": backend})
    return access_key, secret_key


def take_back(keys_file: Path, access_key: str) -> None:
    """End the life of a key that was lent."""
    lent_file(keys_file, access_key).unlink(missing_ok=True)


def new_key() -> tuple[str, str]:
    """An access key that nobody has, and its secret."""
    return secrets.token_hex(10).upper(), secrets.token_urlsafe(30)
