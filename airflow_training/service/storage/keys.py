"""The access keys of the S3 endpoint: those of clients, and temporary keys for jobs on other machines.

As a program it is the auth proxy of rclone, which asks on stdin for the backend of an access key: once for each new key
and again every few minutes, so this module imports little. Source: `rclone serve s3 --help`, "Auth Proxy".
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from airflow_training.service.atomic_files import read_json, write_json

KEYS_FILE_VARIABLE = "AIRFLOW_TRAINING_STORAGE_KEYS"
"""The variable with the keys file: rclone splits the command line of the program at spaces, which a path may have."""

# Beside the keys file, with a file for each temporary key. These outlive the service, as jobs do.
_TEMPORARY_KEYS = "temporary-keys"


def new_key() -> tuple[str, str]:
    """A new access key and its secret key."""
    import secrets  # noqa: PLC0415 - slow to import, and the program needs none

    return secrets.token_hex(10).upper(), secrets.token_urlsafe(30)


def issue_temporary_key(keys_file: Path, backend: dict[str, Any]) -> tuple[str, str]:
    """Issue an access key and a secret key for a job that accesses its files over S3; valid until revoked."""
    access_key, secret_key = new_key()
    file = _temporary_key_file(keys_file, access_key)
    file.parent.mkdir(mode=0o700, exist_ok=True)
    write_json(file, {"secret": secret_key, "backend": backend})
    return access_key, secret_key


def revoke_temporary_key(keys_file: Path, access_key: str) -> None:
    """Revoke a temporary key."""
    _temporary_key_file(keys_file, access_key).unlink(missing_ok=True)


def answer_rclone(access_key: str, keys_file: Path) -> dict[str, Any]:
    """The backend of an access key; for an unknown key, one without a secret, with which rclone refuses the request."""
    known = _find(access_key, keys_file) or {"secret": "", "backend": {"type": "local", "_root": os.devnull}}
    return {**known["backend"], "_secret_access_key": known["secret"]}


def _find(access_key: str, keys_file: Path) -> dict[str, Any] | None:
    # The client chooses the access key: it must not lead to another path.
    if re.fullmatch(r"[0-9A-F]+", access_key) and (key := read_json(_temporary_key_file(keys_file, access_key))):
        return key
    return (read_json(keys_file) or {}).get(access_key)


def _temporary_key_file(keys_file: Path, access_key: str) -> Path:
    return keys_file.parent / _TEMPORARY_KEYS / f"{access_key}.json"


if __name__ == "__main__":
    json.dump(answer_rclone(json.load(sys.stdin)["user"], Path(os.environ[KEYS_FILE_VARIABLE])), sys.stdout)
