"""Finding the SavedModel among the files that a job left behind."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

MARKER = "saved_model.pb"

# So many of the models that are passed over are named: a training may leave a hundred checkpoints.
_NAMED = 5
# What a training saves on its way, by the name of a folder.
_CHECKPOINT = re.compile(r"checkpoint|ckpt", re.IGNORECASE)


def find_saved_model(keys: Iterable[str]) -> str | None:
    """Name the folder of the SavedModel: of several models the most likely one, and of that the newest version.

    Args:
        keys: The files of the job folder.

    Returns:
        The folder that holds `saved_model.pb`, or None.

    >>> find_saved_model(["j/model/9/saved_model.pb", "j/model/10/saved_model.pb", "j/log.txt"])
    'j/model/10'
    """
    return next(iter(find_saved_models(keys)), None)


def find_saved_models(keys: Iterable[str]) -> list[str]:
    """Name the folder of each SavedModel, in its newest version; the most likely one first.

    TensorFlow Serving's rule decides among the versions of one model: version folders have whole numbers as names, and
    the greatest is the newest. Numbers below different folders are not compared. Among different models, one
    that is not a checkpoint comes first, then one with versions, then the one nearest to the top, then `model`.

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


def choice_among(models: Sequence[str]) -> str:
    """Say which of several SavedModels is taken, and which are passed over; empty if there is one only.

    >>> choice_among(["model/2", "checkpoints/100"])
    'Of several SavedModels model/2 is taken; passed over: checkpoints/100'
    """
    taken, *others = models
    more = f" and {len(others) - _NAMED} more" if len(others) > _NAMED else ""
    return f"Of several SavedModels {taken} is taken; passed over: {', '.join(others[:_NAMED])}{more}" if others else ""


def _rank(model: PurePosixPath, version: int) -> tuple[bool, bool, int, bool, str]:
    checkpoint = _CHECKPOINT.search(str(model)) is not None
    return checkpoint, version < 0, len(model.parts), model.name != "model", str(model)
