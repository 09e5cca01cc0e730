"""The folder that TensorFlow Serving watches: `<model>/<version>/`. It serves the greatest version.

Source: TensorFlow Serving's file system source, whose versions are the folders with integers as names.

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

# A lock, which contains the last version number that was given out.
_LAST_VERSION = ".last-version"


def versions(model: str | Path) -> list[int]:
    """The existing versions of a model, oldest first."""
    folder = Path(model)
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(version.name) for version in found if version.name.isdecimal())


def publish(location: str, model: str | Path, *, keep: int) -> int:
    """Publish a model as the next version, and remove the oldest versions.

    Serving sees a version only when it is complete. A number is never reused, even if its version was withdrawn. Two
    concurrent tasks publish two versions.

    Args:
        location: The model, as a training returns it: a folder, or a file, which is then the content of the version.
        model: The model's folder.
        keep: How many versions to keep, this one included.

    Returns:
        The version.

    Raises:
        StorageError: The model cannot be read, or its folder cannot be written.
    """
    folder = Path(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".publishing-", dir=folder) as publishing:
            copy = Path(publishing) / "model"
            copy_model(location, str(copy), "copy", threading.Event())
            with _locked(folder) as last:
                version = max([int(last.read() or 0), *versions(folder)]) + 1
                copy.rename(folder / str(version))
                last.seek(0)
                last.write(str(version))
                for old in versions(folder)[: -max(1, keep)]:
                    _remove(folder / str(old))
    except OSError as error:
        raise StorageError(
            f"The model at {location} could not be published in {folder}: {error}.", code="AT-341"
        ) from error
    mark_deployed(location, folder, version)
    return version


def withdraw(model: str | Path, version: int) -> int | None:
    """Remove a version: Serving returns to the previous one.

    Args:
        model: The model's folder.
        version: The version; it need not exist any more.

    Returns:
        The version that is served now; None if there is no other, and the version stays.

    Raises:
        StorageError: It cannot be removed.
    """
    folder = Path(model)
    try:
        with _locked(folder):
            others = [other for other in versions(folder) if other != version]
            if not others:
                return None
            _remove(folder / str(version))
    except OSError as error:
        raise StorageError(
            f"The version {version} could not be removed from {folder}: {error}.", code="AT-342"
        ) from error
    mark_deployed(None, folder, version)
    return max(others)


def mark_deployed(location: str | None, model: str | Path, version: int | str) -> None:
    """Show on the training page that the model of a training is served; does nothing outside of a task.

    `publish` and `withdraw` call it: use it for other deployments.

    Args:
        location: The location that the training returned; None if the version is not served any more.
        model: The deployment that serves it: the last version that is marked for it counts.
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
        events = ti.xcom_pull(task_ids=ti.task_id, key=DEPLOYED_KEY, map_indexes=ti.map_index) or []
        ti.xcom_push(DEPLOYED_KEY, [*events, event])
    except Exception as error:  # noqa: BLE001 - the model is served, whatever Airflow's error
        _log.warning("The training page will not show the deployment of version %s of %s: %s", version, model, error)


@contextmanager
def _locked(folder: Path) -> Iterator[TextIO]:
    """Lock the versions of a model against other tasks."""
    path = folder / _LAST_VERSION
    path.touch()
    with path.open("r+") as last:
        fcntl.flock(last, fcntl.LOCK_EX)
        yield last


def _remove(version: Path) -> None:
    """Remove a version; Serving never sees an incomplete one."""
    removed = version.with_name(f".{version.name}-removed")
    shutil.rmtree(removed, ignore_errors=True)
    if version.exists():
        version.rename(removed)
        shutil.rmtree(removed)
