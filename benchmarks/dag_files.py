"""The cost of parsing a Dag file beyond `import airflow.sdk`: `python -m benchmarks.dag_files`.

Each file in `dags/` runs in its own processes, alternating with a file that makes an empty Dag. The output is the
median CPU time of each file, and its difference from the empty Dag.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from statistics import median

ROUNDS = 9
EMPTY = "from airflow.sdk import DAG, task\nwith DAG('empty', schedule=None):\n    task(lambda: None)"


def cpu_time(program: str) -> float:
    """The CPU seconds of a program."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measure and print."""
    files = sorted(Path("dags").glob("*.py"))
    programs = {"an empty Dag": EMPTY} | {file.name: f"import runpy; runpy.run_path({str(file)!r})" for file in files}
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(ROUNDS):
        for name, program in programs.items():
            seconds[name].append(cpu_time(program))
    empty = median(seconds["an empty Dag"])
    for name, measured in seconds.items():
        more = median(measured) - empty
        print(f"{name:24} {median(measured) * 1000:6.0f} ms  {more * 1000:+5.0f} ms  {median(measured) / empty:.2f}")


if __name__ == "__main__":
    main()
