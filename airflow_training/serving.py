"""The folder that TensorFlow Serving watches: `<model>/<version>/`, of which it serves the greatest version.

Source: TensorFlow Serving's file system source, whose versions are the folders with whole numbers as names.

Example:
    >>> version = publish(location, "/models/census", keep=3)  # doctest: +SKIP
    >>> withdraw("/models/census", version)  # doctest: +SKIP
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from pathlib import Path

from airflow_training.exceptions import StorageError
from airflow_training.operators.destination import copy_model


def versions(model: str | Path) -> list[int]:
    """The versions of a model that are there, the oldest first."""
    folder = Path(model)
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(int(version.name) for version in found if version.name.isdecimal())


def publish(location: str, model: str | Path, *, keep: int) -> int:
    """Publish a model as the version after the last one, and remove the oldest ones.

    Serving sees the version when it is whole. Two tasks that publish at once publish two versions.

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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".publishing-", dir=folder) as publishing:
            copy = Path(publishing) / "model"
            copy_model(location, str(copy), "copy")
            version = _number(copy, folder)
    except OSError as error:
        raise StorageError(f"The model at {location} could not be published in {folder}: {error}.") from error
    for old in versions(folder)[: -max(1, keep)]:
        _remove(folder / str(old))
    return version


def _number(copy: Path, folder: Path) -> int:
    """Give a model the next number that is free."""
    while True:
        version = max(versions(folder), default=0) + 1
        try:
            copy.rename(folder / str(version))
        except OSError as error:
            # Somebody else took it: a folder that is not empty is not replaced.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return version


def withdraw(model: str | Path, version: int) -> int | None:
    """Take a version back: Serving goes on with the one before.

    Args:
        model: The model's folder.
        version: The version, which may be gone already.

    Returns:
        The version that is served now; None where there is no other: the one that was to go then stays.
    """
    folder = Path(model)
    others = [other for other in versions(folder) if other != version]
    if not others:
        return None
    _remove(folder / str(version))
    return max(others)


def _remove(version: Path) -> None:
    """Remove a version; Serving never sees half of one."""
    going = version.with_name(f".{version.name}-going")
    try:
        shutil.rmtree(going, ignore_errors=True)
        if version.exists():
            version.rename(going)
            shutil.rmtree(going)
    except OSError as error:
        raise StorageError(f"The version {version} could not be removed: {error}.") from error
