"""The cost of an upload, compared with rclone: `python -m benchmarks.upload`.

A real service runs in a temporary folder. To its storage, on the same machine, are uploaded

1. one file of 2 GiB,
2. 10,000 files of 10 KB,

alternately by `JobStorage.upload`, in a process of its own, and by `rclone copy` with the same numbers of concurrent
files and parts and the same part size. Each begins with an empty folder, and then uploads the same files again. The
output is a table, and each figure as `name: value unit`.

The time of our upload begins with the search for its files; rclone's time includes its start.
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

from airflow_training.api.storage import BUCKET
from airflow_training.client.storage import JobStorage
from airflow_training.local.guard import guarded_folder
from airflow_training.local.service import LocalService
from benchmarks.service import TENANT, connected

ROUNDS = 3
MEBIBYTE = 1024 * 1024
LARGE = 2048 * MEBIBYTE
SMALL, NUMBER = 10_000, 10_000

Times = dict[str, list[float]]


def fill_with_one(folder: Path) -> float:
    """Write the large file and return its MiB."""
    folder.mkdir()
    block = os.urandom(16 * MEBIBYTE)
    with (folder / "large.bin").open("wb") as file:
        for number in range(LARGE // len(block)):
            file.write(number.to_bytes(8, "big") + block[8:])
    return LARGE / MEBIBYTE


def fill_with_many(folder: Path) -> float:
    """Write the small files and return their MiB."""
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
    """Upload a directory, and the same again, in each round."""
    measured: Times = {}
    for number in range(ROUNDS):
        for who, upload in (("ours", ours), ("theirs", theirs)):
            target = f"benchmark/{source.name}-{number}-{who}"
            for what in ("first", "again"):
                # Earlier writes reach the disk outside of the measured time.
                os.sync()
                for name, value in upload(source, target, environment).items():
                    measured.setdefault(f"{who} {what} {name}", []).append(value)
            shutil.rmtree(storage / target)
    return measured


def figures(what: str, size: float, measured: Times) -> dict[str, tuple[float, str]]:
    """The figures of an upload and of its repetition: name → value and unit."""
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
    all_figures: dict[str, tuple[float, str]] = {}
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
                all_figures |= figures(what, size, in_turns(source, bucket, environment))
                shutil.rmtree(source)
    for name, (value, unit) in all_figures.items():
        print(f"{name:60}{value:>10.2f} {unit}")
    print("", *(f"{name}: {value:.2f} {unit}" for name, (value, unit) in all_figures.items()), sep="\n")


if __name__ == "__main__":
    main()
