"""Finding the SavedModel among the files that a job left behind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

MARKER = "saved_model.pb"


def find_saved_model(keys: Iterable[str]) -> str | None:
    """Name the folder of the SavedModel: of several, the newest version.

    TensorFlow Serving's rule decides: version folders have whole numbers as names and the greatest is the
    newest. Without version folders the one nearest to the top is taken.

    Args:
        keys: The files of the job folder.

    Returns:
        The folder that holds `saved_model.pb`, or None.

    >>> find_saved_model(["j/model/9/saved_model.pb", "j/model/10/saved_model.pb", "j/log.txt"])
    'j/model/10'
    """
    folders = [PurePosixPath(key).parent for key in keys if PurePosixPath(key).name == MARKER]
    return str(max(folders, key=_newest_then_nearest)) if folders else None


def _newest_then_nearest(folder: PurePosixPath) -> tuple[int, int, str]:
    version = int(folder.name) if folder.name.isdecimal() else -1
    return version, -len(folder.parts), str(folder)
