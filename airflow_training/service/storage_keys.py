"""The program that rclone asks who an access key belongs to: `python -m … <keys file>` with the question on stdin.

It is started for each new access key and again every few minutes, so it imports next to nothing.
Source: `rclone serve s3 --help`, "Auth Proxy".
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

# rclone splits the program's command line at spaces; a variable keeps a path with spaces whole.
KEYS_FILE_VARIABLE = "AIRFLOW_TRAINING_STORAGE_KEYS"


def answer(access_key: str, keys: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The backend for an access key; one without a secret, which refuses the request, for a key we did not give out."""
    owner = keys.get(access_key, {"secret": "", "backend": {"type": "local", "_root": os.devnull}})
    return {**owner["backend"], "_secret_access_key": owner["secret"]}


if __name__ == "__main__":
    known = json.loads(Path(os.environ[KEYS_FILE_VARIABLE]).read_bytes())
    json.dump(answer(json.load(sys.stdin)["user"], known), sys.stdout)
