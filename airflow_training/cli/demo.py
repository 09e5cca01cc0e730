"""`airflow-training demo`: run a training on this machine, with a real Airflow and a real training service."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from airflow_training.exceptions import TrainingError

if TYPE_CHECKING:
    from rich.console import Console

    from airflow_training.local.airflow import LocalAirflow
    from airflow_training.local.service import LocalService

_CHECKOUT = Path(__file__).parents[2]
_CONNECTION = "training_default"
_DAG = "train_census"
_ENDED = frozenset({"success", "failed"})


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep Airflow and the service running afterwards, until Ctrl+C.")
    ] = False,
) -> None:
    """Train a model on census data with a real Airflow on this machine, and show its progress."""
    from rich.console import Console

    console = Console(highlight=False)
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, _interrupt)
    try:
        _run(console, keep=keep)
    except KeyboardInterrupt:
        console.print("All processes of the demo have been stopped.")
        raise typer.Exit(130) from None
    except TrainingError as error:
        console.print("[red]✗[/] ", end="")
        console.print(str(error), markup=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _run(console: Console, *, keep: bool) -> None:
    from airflow_training.local.airflow import LocalAirflow
    from airflow_training.local.service import LocalService

    dags = _CHECKOUT / "dags"
    if not (dags / f"{_DAG}.py").is_file():
        raise TrainingError(
            "The demo needs the Dags in the repository: clone it and run `make demo` there.", code="AT-701"
        )
    began = time.monotonic()
    with ExitStack() as cleanup:
        folder = cleanup.enter_context(_new_folder())
        service = LocalService(folder / "service")
        # The other Dags are paused; if the user runs them, their models are in the demo's folder.
        settings = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True", "MODELS_FOLDER": str(folder / "models")}
        airflow = LocalAirflow(folder / "airflow", dags, settings)
        # Called in reverse order, each even if another one fails.
        cleanup.callback(service.remove)
        cleanup.callback(airflow.stop)
        cleanup.callback(console.print, "Stopping all processes …")
        cleanup.callback(_ignore_interrupts)
        console.print(f"[bold]airflow-training demo[/]: all files are in {_relative(folder)}")
        with _step(console, "Training service"):
            service.start()
            credentials = service.add_client("demo")
        with _step(console, "Airflow: database"):
            airflow.migrate()
        with _step(console, "Airflow: api-server, scheduler, dag-processor, triggerer"):
            airflow.start()
        with _step(console, f"Connection {_CONNECTION}"):
            airflow.connect(_CONNECTION, service.url, credentials)
        with _step(console, f"Dag {_DAG}"):
            airflow.unpause(_DAG)
        run = airflow.trigger(_DAG)
        console.print(f"[green]✓[/] Run {run}\n  The log of its task `train` in Airflow:")
        _show_run(console, airflow, service, run)
        result = f"{_result(airflow, run, service.data)}\nTotal time  {time.monotonic() - began:.0f} s"
        if keep:
            _show_result(console, result)
            console.print(f"Airflow UI  [bold]{airflow.url}[/]")
            console.print(f"User        [bold]admin[/]\nPassword    [bold]{airflow.password}[/]")
            console.print("Press Ctrl+C to stop everything.")
            with suppress(KeyboardInterrupt):
                signal.pause()
    if not keep:
        _show_result(console, result)


def _show_run(console: Console, airflow: LocalAirflow, service: LocalService, run: str) -> None:
    """Print the log lines of the training as they arrive, until the run has ended."""
    from rich.text import Text

    shown: set[tuple[str, str]] = set()
    with console.status("") as status:
        while True:
            # The state is read before the log, so that the log is complete once the task has ended.
            task = airflow.task(_DAG, run, "train")
            for line in _training_lines(airflow, run, task):
                # Airflow sorts the lines of worker and triggerer by time, so a new line need not be the last.
                if line not in shown:
                    shown.add(line)
                    time_of_day, text = _time_of_day(line[0]), line[1]
                    console.print(Text.assemble((time_of_day, "dim"), " ", text), soft_wrap=True)
            state = airflow.api("GET", f"/dags/{_DAG}/dagRuns/{run}")["state"]
            status.update(f"Task `train`: {task['state'] or 'waiting'}; run: {state}")
            if state in _ENDED:
                break
            airflow.check()
            service.process.check()
            time.sleep(0.5)
    if state != "success":
        raise TrainingError(
            f"The run {run} failed. {_failures(airflow, run)}\nAirflow's logs are in {airflow.home}.",
            code="AT-702",
        )


def _failures(airflow: LocalAirflow, run: str) -> str:
    failed = [task for task in airflow.tasks(_DAG, run) if task["state"] == "failed"]
    logs = [(task["task_id"], airflow.log(_DAG, run, task["task_id"], task["try_number"])) for task in failed]
    errors = [f"{name}: {_error(entry)}" for name, log in logs for entry in log if entry.get("level") == "error"]
    return "\n".join(errors)


def _error(entry: dict[str, Any]) -> str:
    details = entry.get("error_detail") or [{"exc_value": entry["event"]}]
    return str(details[-1]["exc_value"])


def _training_lines(airflow: LocalAirflow, run: str, task: dict[str, Any]) -> list[tuple[str, str]]:
    """Time and text of the lines that this package wrote into the task log: its own and those of the job."""
    if task["state"] in {None, "scheduled", "queued"}:
        return []
    entries = airflow.log(_DAG, run, "train", task["try_number"])
    return [(e["timestamp"], e["event"]) for e in entries if "airflow_training." in str(e.get("logger"))]


def _result(airflow: LocalAirflow, run: str, data: Path) -> str:
    """The results of the run, from XCom."""
    location = airflow.xcom(_DAG, run, "train")
    accuracy = airflow.xcom(_DAG, run, "evaluate")
    (on_disk,) = data.glob(f"tenants/*/data/{location.partition('@data/')[2]}")
    return f"Model       {location}\nOn disk     {_relative(on_disk)}\nAccuracy    {accuracy:.2%} on the test set"


def _show_result(console: Console, result: str) -> None:
    console.print("[green]✓[/] The model has been trained:")
    console.print(result, markup=False, soft_wrap=True)


@contextmanager
def _step(console: Console, what: str) -> Iterator[None]:
    began = time.monotonic()
    with console.status(what):
        yield
    console.print(f"[green]✓[/] {what} [dim]({time.monotonic() - began:.0f} s)[/]")


@contextmanager
def _new_folder() -> Iterator[Path]:
    """A new folder below `.demo`; folders of earlier demos are removed, unless these still run."""
    from airflow_training.local.guard import guard

    home = _CHECKOUT / ".demo"
    home.mkdir(exist_ok=True)
    folder = home / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{os.getpid()}"
    with (home / "lock").open("a") as creation:
        fcntl.flock(creation, fcntl.LOCK_EX)
        for earlier in home.glob("*/lock"):
            with earlier.open("a") as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(earlier.parent)
        folder.mkdir()
        held = (folder / "lock").open("a")
        fcntl.flock(held, fcntl.LOCK_EX)
    guard(folder, remove=False)
    with held:
        yield folder


def _time_of_day(timestamp: str) -> str:
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).astimezone().strftime("%H:%M:%S")


def _relative(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _ignore_interrupts() -> None:
    """A second Ctrl+C must not leave processes behind."""
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.SIG_IGN)
