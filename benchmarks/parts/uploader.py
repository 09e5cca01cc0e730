"""One upload in a process of its own, for `benchmarks.upload`: `python -m benchmarks.parts.uploader SOURCE FOLDER`.

It uploads a directory to the storage in the environment, as the operator does, and prints the cost as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from airflow_training.api.parameters import TrainingParameters
from airflow_training.api.storage import StorageAccess
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import JobStorage
from airflow_training.operators.files import input_errors, uploads


def main(source: str, folder: str) -> None:
    """Upload, and print seconds, CPU seconds, and bytes of memory beyond those of the idle process."""
    access = StorageAccess(
        endpoint=os.environ["RCLONE_CONFIG_SERVICE_ENDPOINT"],
        access_key=os.environ["RCLONE_CONFIG_SERVICE_ACCESS_KEY_ID"],
        secret_key=os.environ["RCLONE_CONFIG_SERVICE_SECRET_ACCESS_KEY"],
    )
    storage = JobStorage(access, ClientSettings("", "", ""))
    described: dict[str, Any] = {"job_name": "benchmark", "image": "-", "completion_time": "1h"}
    described |= {"script": "#!/bin/sh\ntrue", "data": {"data": source}}
    parameters = TrainingParameters.read(described)
    # As the operator does; this imports Airflow's object storage.
    if errors := input_errors(described, Path(source)):
        raise SystemExit("; ".join(errors))
    sent: list[bool] = []
    idle, began, processor = psutil.Process().memory_info().rss, time.perf_counter(), time.process_time()
    files = uploads(parameters, Path(source))
    asyncio.run(storage.upload(folder, files, lambda _name, _size, was_sent: sent.append(was_sent)))
    took = {"seconds": time.perf_counter() - began, "processor": time.process_time() - processor}
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    print(json.dumps({**took, "memory": peak - idle, "files": len(sent), "sent": sum(sent)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
