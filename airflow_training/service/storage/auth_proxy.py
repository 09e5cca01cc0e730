"""Who an access key of the S3 endpoint belongs to; as a program, what rclone asks: the question comes on stdin.

It is started for each new access key and again every few minutes, so it imports next to nothing.
Source: `rclone serve s3 --help`, "Auth Proxy".
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from airflow_training.service.durable_files import read_json

# Beside the keys file: a file for each key that a job has. They outlive the service, as jobs do.
_LENT = "lent"
# rclone splits the program's command line at spaces; a variable keeps a path with spaces whole.
KEYS_FILE_VARIABLE = "AIRFLOW_TRAINING_STORAGE_KEYS"


def owner_of(access_key: str, keys_file: Path) -> dict[str, Any] | None:
    """The secret and the backend of an access key; None for one that we did not give out."""
    # Whoever comes chooses what stands here, and no path is made of it that leads elsewhere.
    if re.fullmatch(r"[0-9A-F]+", access_key) and (lent := read_json(lent_file(keys_file, access_key))):
        return lent
    return (read_json(keys_file) or {}).get(access_key)


def lent_file(keys_file: Path, access_key: str) -> Path:
    """The file of a key that was lent."""
    return keys_file.parent / _LENT / f"{access_key}.json"


def answer(access_key: str, keys_file: Path) -> dict[str, Any]:
    """The backend for an access key; one without a secret, which refuses the request, for a key we did not give out."""
    owner = owner_of(access_key, keys_file) or {"secret": "", "backend": {"type": "local", "_root": os.devnull}}
    return {**owner["backend"], "_secret_access_key": owner["secret"]}


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)["user"], Path(os.environ[KEYS_FILE_VARIABLE])), sys.stdout)
