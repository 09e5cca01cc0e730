"""What an upload costs: `python -m benchmarks.upload`.

A real service is started in a temporary folder. To its storage, on the same machine, go

1. one file of 2 GiB,
2. 10,000 files of 10 KB,

each in turns by `JobStorage.upload`, in a process of its own, and by `rclone copy`, which sends as many files and as
many parts of a file at once, of the same size. Each begins with an empty folder, and sends the same again when it has
ended. Printed are a table, and each figure as `name: value unit`.

The seconds of an upload are those from the search for its files to its end; what rclone takes to start is in its own.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

from airflow_training.client.storage import BUCKET, JobStorage
from airflow_training.local.guard import guarded_folder
from airflow_training.local.service import LocalService
from benchmarks.service import TENANT, connected

ROUNDS = 3
MEBIBYTE = 1024 * 1024
LARGE = 2048 * MEBIBYTE
SMALL, NUMBER = 10_000, 10_000

Times = dict[str, list[float]]


def fill_with_one(folder: Path) -> float:
    """Write the large file, and tell how many MiB that are."""
    folder.mkdir()
    block = os.urandom(16 * MEBIBYTE)
    with (folder / "large.bin").open("wb") as file:
        for number in range(LARGE // len(block)):
            file.write(number.to_bytes(8, "big") + block[8:])
    return LARGE / MEBIBYTE


def fill_with_many(folder: Path) -> float:
    """Write the small files, and tell how many MiB that are."""
    folder.mkdir()
    for number in range(NUMBER):
        (folder / f"{number}.bin").write_bytes(os.urandom(SMALL))
    return SMALL * NUMBER / MEBIBYTE


def ours(source: Path, target: str, environment: Mapping[str, str]) -> dict[str, float]:
    """Upload a directory as the operator does."""
    command = [sys.executable, "-m", "benchmarks.parts.uploader", str(source), target]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def theirs(source: Path, target: str, environment: Mapping[str, str]) -> dict[str, float]:
    """Upload a directory with rclone."""
    command = [
        *(str(Path(sys.executable).with_name("rclone")), "copy", str(source), f"service:{BUCKET}/{target}"),
        *("--transfers", str(JobStorage.FILES), "--checkers", str(JobStorage.FILES)),
        *("--s3-upload-concurrency", str(JobStorage.PARTS), "--s3-chunk-size", f"{JobStorage.PART_SIZE}B"),
        *("--s3-upload-cutoff", f"{JobStorage.PART_SIZE}B", "--s3-no-check-bucket"),
    ]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, env=environment, check=True)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": seconds, "processor": sum(after[:2]) - sum(before[:2])}


def in_turns(source: Path, storage: Path, environment: Mapping[str, str]) -> Times:
    """Upload a directory, and the same again, as often as there are rounds."""
    measured: Times = {}
    for number in range(ROUNDS):
        for who, upload in (("ours", ours), ("theirs", theirs)):
            target = f"benchmark/{source.name}-{number}-{who}"
            for what in ("first", "again"):
                # What was written before goes to the disk in nobody's time.
                os.sync()
                for name, value in upload(source, target, environment).items():
                    measured.setdefault(f"{who} {what} {name}", []).append(value)
            shutil.rmtree(storage / target)
    return measured


def figures(what: str, size: float, measured: Times) -> dict[str, tuple[float, str]]:
    """What is told of an upload and of the same again: values and units, by their names."""
    middle = {name: median(values) for name, values in measured.items()}
    first, again = middle["ours first seconds"], middle["ours again seconds"]
    memory = max(measured["ours first memory"] + measured["ours again memory"])
    return {
        f"{what}, throughput": (size / first, "MiB/s"),
        f"{what}, throughput of rclone": (size / middle["theirs first seconds"], "MiB/s"),
        f"{what}, throughput to that of rclone": (middle["theirs first seconds"] / first, "ratio"),
        f"{what}, processor": (middle["ours first processor"], "s"),
        f"{what}, processor of rclone": (middle["theirs first processor"], "s"),
        f"{what}, memory beyond the idle process, greatest": (memory / MEBIBYTE, "MiB"),
        f"{what}, unchanged": (again, "s"),
        f"{what}, unchanged, rclone": (middle["theirs again seconds"], "s"),
        f"{what}, unchanged, files sent again": (max(measured["ours again sent"]), "files"),
        f"{what}, unchanged, rclone's time to ours": (middle["theirs again seconds"] / again, "ratio"),
        f"{what}, first time to unchanged": (first / again, "ratio"),
    }


def main() -> None:
    """Measure everything, and print it."""
    told: dict[str, tuple[float, str]] = {}
    with guarded_folder("benchmark-") as folder:
        service = LocalService(folder / "service")
        with connected(service) as (connection,):
            access = json.loads(connection.ask("/api/v2/storage", "POST"))
            while access["status"] != "Ready":
                time.sleep(0.1)
                access = json.loads(connection.ask("/api/v2/storage"))
            environment = {
                **os.environ,
                "RCLONE_CONFIG": os.devnull,
                "RCLONE_CONFIG_SERVICE_TYPE": "s3",
                "RCLONE_CONFIG_SERVICE_PROVIDER": "Rclone",
                "RCLONE_CONFIG_SERVICE_ENDPOINT": access["endpoint"],
                "RCLONE_CONFIG_SERVICE_ACCESS_KEY_ID": access["accessKey"],
                "RCLONE_CONFIG_SERVICE_SECRET_ACCESS_KEY": access["secretKey"],
            }
            for what, fill in (("one large file", fill_with_one), ("many small files", fill_with_many)):
                source = Path(folder, what.replace(" ", "-"))
                size = fill(source)
                bucket = service.data / "tenants" / TENANT / BUCKET
                told |= figures(what, size, in_turns(source, bucket, environment))
                shutil.rmtree(source)
    for name, (value, unit) in told.items():
        print(f"{name:60}{value:>10.2f} {unit}")
    print("", *(f"{name}: {value:.2f} {unit}" for name, (value, unit) in told.items()), sep="\n")


if __name__ == "__main__":
    main()
