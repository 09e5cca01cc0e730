"""Finding the SavedModel among the files of a job."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

MARKER = "saved_model.pb"

# The most ignored models in a message: a training may leave a hundred checkpoints.
_MAX_LISTED = 5
# Folder names of intermediate models.
_CHECKPOINT = re.compile(r"checkpoint|ckpt", re.IGNORECASE)


def find_saved_model(keys: Iterable[str]) -> str | None:
    """Return the folder of the SavedModel: the most likely model, in its newest version.

    Args:
        keys: The files of the job folder.

    Returns:
        The folder with `saved_model.pb`, or None.

    >>> find_saved_model(["j/model/9/saved_model.pb", "j/model/10/saved_model.pb", "j/log.txt"])
    'j/model/10'
    """
    return next(iter(find_saved_models(keys)), None)


def find_saved_models(keys: Iterable[str]) -> list[str]:
    """Return the folder of each SavedModel in its newest version, the most likely model first.

    Versions follow TensorFlow Serving's rule: version folders have whole numbers as names, and the greatest is the
    newest. Among different models, a model that is not a checkpoint comes first, then one with versions, then the one
    nearest to the top, then `model`.

    >>> find_saved_models(["j/checkpoints/100/saved_model.pb", "j/model/1/saved_model.pb", "j/model/2/saved_model.pb"])
    ['j/model/2', 'j/checkpoints/100']
    """
    newest: dict[PurePosixPath, tuple[int, PurePosixPath]] = {}
    for key in map(PurePosixPath, keys):
        if key.name == MARKER:
            folder = key.parent
            versioned = folder.name.isdecimal()
            found = (int(folder.name) if versioned else -1, folder)
            model = folder.parent if versioned else folder
            newest[model] = max(newest.get(model, found), found)
    return [str(newest[model][1]) for model in sorted(newest, key=lambda model: _rank(model, newest[model][0]))]


def describe_choice(models: Sequence[str]) -> str:
    """Describe which of several SavedModels is used; empty if there is only one.

    >>> describe_choice(["model/2", "checkpoints/100"])
    'Found several SavedModels, using model/2; ignored: checkpoints/100'
    """
    used, *others = models
    more = f" and {len(others) - _MAX_LISTED} more" if len(others) > _MAX_LISTED else ""
    return (
        f"Found several SavedModels, using {used}; ignored: {', '.join(others[:_MAX_LISTED])}{more}" if others else ""
    )


def _rank(model: PurePosixPath, version: int) -> tuple[bool, bool, int, bool, str]:
    checkpoint = _CHECKPOINT.search(str(model)) is not None
    return checkpoint, version < 0, len(model.parts), model.name != "model", str(model)
