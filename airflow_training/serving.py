"""The folder that TensorFlow Serving watches: `<model>/<version>/`, of which it serves the greatest version.

Source: TensorFlow Serving's file system source, whose versions are the folders with whole numbers as names.

Example:
    >>> version = publish(location, "/models/census", keep=3)  # doctest: +SKIP
    >>> withdraw("/models/census", version)  # doctest: +SKIP
"""

from __future__ import annotations

import fcntl
import logging
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from airflow.sdk import get_current_context

from airflow_training.exceptions import StorageError
from airflow_training.operators.destination import copy_model
from airflow_training.xcom_keys import DEPLOYED_KEY

_log = logging.getLogger(__name__)

# Who holds it gives numbers; it holds the last one that was given.
_LAST_VERSION = ".last-version"


def versions(model: str | Path) -> list[int]:
    """The versions of a model that are there, the oldest first."""
    folder = Path(model)
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(version.name) for version in found if version.name.isdecimal())


def publish(location: str, model: str | Path, *, keep: int) -> int:
    """Publish a model as the version after the last one, and remove the oldest ones.

    Serving sees the version when it is whole. A number is given once, also when its version was withdrawn. Two tasks
    that publish at once publish two versions.

    Args:
        location: The folder of the SavedModel, as a training hands it on.
        model: The model's folder.
        keep: How many versions stay, this one included.

    Returns:
        The version.

    Raises:
        StorageError: The model cannot be read, or its folder not be written.
    """
    folder = Path(model)
    with _in_words(f"The model at {location} could not be published in {folder}", code="AT-341"):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".publishing-", dir=folder) as publishing:
            copy = Path(publishing) / "model"
            copy_model(location, str(copy), "copy", threading.Event())
            with _alone(folder) as last:
                version = max([int(last.read() or 0), *versions(folder)]) + 1
                copy.rename(folder / str(version))
                last.seek(0)
                last.write(str(version))
                for old in versions(folder)[: -max(1, keep)]:
                    _remove(folder / str(old))
    mark_deployed(location, folder, version)
    return version


def withdraw(model: str | Path, version: int) -> int | None:
    """Take a version back: Serving goes on with the one before.

    Args:
        model: The model's folder.
        version: The version, which may be gone already.

    Returns:
        The version that is served now; None where there is no other, and the one that was to go stays.

    Raises:
        StorageError: It cannot be removed.
    """
    folder = Path(model)
    with _in_words(f"The version {version} could not be removed from {folder}", code="AT-342"), _alone(folder):
        others = [other for other in versions(folder) if other != version]
        if not others:
            return None
        _remove(folder / str(version))
    mark_deployed(None, folder, version)
    return max(others)


def mark_deployed(location: str | None, model: str | Path, version: int | str) -> None:
    """Have the training page mark the training whose model is served; outside of a task nothing happens.

    `publish` and `withdraw` do so themselves: it is for those who deploy otherwise.

    Args:
        location: The location that the training handed on; None where the version is not served any more.
        model: What serves it: of each, the version that was marked last counts.
        version: The version.

    Example:
        >>> mark_deployed("training://training_default@data/jobs/…/model/1", "endpoint-eu", "42")
    """
    try:
        ti: Any = get_current_context()["ti"]
    except RuntimeError:
        return
    event = {"model": str(model), "version": str(version), "location": location}
    try:
        told = ti.xcom_pull(task_ids=ti.task_id, key=DEPLOYED_KEY, map_indexes=ti.map_index) or []
        ti.xcom_push(DEPLOYED_KEY, [*told, event])
    except Exception as error:  # noqa: BLE001 - whatever ails Airflow's database: what is served is served
        _log.warning("The training page will not show what is served, version %s of %s: %s", version, model, error)


@contextmanager
def _alone(folder: Path) -> Iterator[TextIO]:
    """Keep other tasks from changing which versions there are."""
    path = folder / _LAST_VERSION
    path.touch()
    with path.open("r+") as last:
        fcntl.flock(last, fcntl.LOCK_EX)
        yield last


@contextmanager
def _in_words(what: str, *, code: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(f"{what}: {error}.", code=code) from error


def _remove(version: Path) -> None:
    """Remove a version; Serving never sees half of one."""
    going = version.with_name(f".{version.name}-going")
    shutil.rmtree(going, ignore_errors=True)
    if version.exists():
        version.rename(going)
        shutil.rmtree(going)
