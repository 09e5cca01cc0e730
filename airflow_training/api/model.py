"""What a job hands on: its SavedModel, the file or folder that its `model` names, or its folder.

All files here are names below the job folder, and so are the results; `.` is the job folder itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePosixPath

from airflow_training.api.metrics import METRICS_FILE
from airflow_training.api.naming import INSTALLED_FILE
from airflow_training.api.parameters import SAVED_MODEL

MARKER = "saved_model.pb"
"""The file that makes a folder a SavedModel."""

_NOT_OF_THE_SCRIPT = frozenset({METRICS_FILE, INSTALLED_FILE})

# The most names in a message: a training may leave a hundred checkpoints.
_MAX_LISTED = 5
# Folder names of intermediate models.
_CHECKPOINT = re.compile(r"checkpoint|ckpt", re.IGNORECASE)


def find_models(files: Iterable[str], model: str | None = SAVED_MODEL, inputs: Collection[str] = ()) -> list[str]:
    """Return what a job hands on, the most likely first, each model in its newest version; empty if it is missing.

    Versions follow TensorFlow Serving's rule: they have whole numbers as names, and the greatest is the newest. Among
    different models, a model that is not a checkpoint comes first, then one with versions, then the one nearest to the
    top, then `model`.

    Args:
        files: The files of the job.
        model: "SavedModel", wherever it is; or a path or glob, of which the outermost files and folders count: `*` is
            any part of a name, `**` any folders, and only a name that begins with a dot stands for hidden ones; or None
            for the job folder.
        inputs: Files and folders that were there before the job ran.

    >>> find_models(["checkpoints/100/saved_model.pb", "model/9/saved_model.pb", "model/10/saved_model.pb"])
    ['model/10', 'checkpoints/100']
    >>> find_models(["train.py", "out/a.onnx", "out/b.onnx"], "out/*.onnx")
    ['out/a.onnx', 'out/b.onnx']
    >>> find_models(["train.py"], None)
    ['.']
    """
    if model is None:
        return ["."]
    left = without_inputs(files, inputs)
    if model == SAVED_MODEL:
        found = [path.parent for path in map(PurePosixPath, left) if path.name == MARKER]
    else:
        path = str(PurePosixPath(model))
        # The service or the task may have written them, after an earlier look.
        matches = _matches((file for file in left if file not in _NOT_OF_THE_SCRIPT or file == path), path)
        found = [_newest(PurePosixPath(match), names) for match, names in matches.items()]
    newest: dict[PurePosixPath, tuple[int, PurePosixPath]] = {}
    for each in found:
        versioned = each.name.isdecimal()
        candidate = (int(each.name) if versioned else -1, each)
        name = each.parent if versioned else each
        newest[name] = max(newest.get(name, candidate), candidate)
    return [str(newest[name][1]) for name in sorted(newest, key=lambda name: _rank(name, newest[name][0]))]


def describe_choice(models: Sequence[str], model: str | None = SAVED_MODEL) -> str:
    """Describe which of several models is handed on; empty if there is only one.

    >>> describe_choice(["model/2", "checkpoints/100"])
    'Found several SavedModels, using model/2; ignored: checkpoints/100'
    >>> describe_choice(["a.pt", "b.pt"], "*.pt")
    'Found several models of the name *.pt, using a.pt; ignored: b.pt'
    """
    used, *others = models
    several = "SavedModels" if model == SAVED_MODEL else f"models of the name {model}"
    return f"Found several {several}, using {used}; ignored: {_listed(others)}" if others else ""


def describe_missing(files: Iterable[str], model: str | None = SAVED_MODEL, inputs: Collection[str] = ()) -> str:
    """Describe what a job was to hand on and what it left instead, as the object of "the job left".

    Args:
        files: The files of the job.
        model: What it was to hand on.
        inputs: Files and folders that were there before the job ran.

    >>> describe_missing(["train.py", "out/model.joblib"], "model.joblib", inputs=["train.py"])
    'no model.joblib, only out/model.joblib'
    >>> describe_missing([])
    'no SavedModel (a folder with saved_model.pb) and no other file'
    """
    if model is None:
        return "no file"
    wanted = f"SavedModel (a folder with {MARKER})" if model == SAVED_MODEL else model
    left = sorted(without_inputs(files, inputs), key=lambda name: (name.count("/"), name))
    return f"no {wanted}, only {_listed(left)}" if left else f"no {wanted} and no other file"


def without_inputs(files: Iterable[str], inputs: Collection[str]) -> list[str]:
    """Return the files of a job that were not there before it ran.

    Args:
        files: The files.
        inputs: Files and folders that were.
    """
    given = frozenset(inputs)

    def is_input(file: str) -> bool:
        while file and file not in given:
            file = file.rpartition("/")[0]
        return bool(file)

    return [file for file in files if not is_input(file)]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    shown = (name if name.isprintable() else ascii(name) for name in names[:_MAX_LISTED])
    return f"{', '.join(shown)}{more}"


def _newest(match: PurePosixPath, names: Collection[str]) -> PurePosixPath:
    """The newest version in a folder of versions alone, else the folder; the names of folders end with a slash."""
    versions = [name.rstrip("/") for name in names if name.endswith("/")]
    only_versions = len(versions) == len(names) > 0 and all(map(str.isdecimal, versions))
    return match / max(versions, key=int) if only_versions else match


def _rank(name: PurePosixPath, version: int) -> tuple[bool, bool, int, bool, str]:
    checkpoint = _CHECKPOINT.search(str(name)) is not None
    return checkpoint, version < 0, len(name.parts), name.stem != "model", str(name)


def _matches(files: Iterable[str], glob: str) -> dict[str, set[str]]:
    """The outermost files and folders that match, with the names in each."""
    parts = glob.split("/")
    end = len(parts)

    # Cached: many files share folders, and with many `**` a search would take too long. A folder follows its parent, so
    # few results are enough: with those of all files, a glob of many `**` would take gigabytes.
    @lru_cache(1024)
    def expected(path: str) -> frozenset[int]:
        """The parts that the next name may match; the end if the path matches."""
        after = {0}
        if path:
            parent, _, name = path.rpartition("/")
            fitting = [at for at in expected(parent) if at < end and _fits(name, parts[at])]
            after = {at if parts[at] == "**" else at + 1 for at in fitting}
        for at, part in enumerate(parts):
            if at in after and part == "**":
                after.add(at + 1)
        return frozenset(after)

    found: dict[str, set[str]] = defaultdict(set)
    for file in files:
        place, rest = "", file
        while rest and expected(place):
            name, _, rest = rest.partition("/")
            place = f"{place}/{name}" if place else name
            if end in expected(place):
                entry, slash, _ = rest.partition("/")
                found[place].update([f"{entry}{slash}"] if entry else [])
                break
    return found


def _fits(name: str, part: str) -> bool:
    # A name may contain what means something else in a glob.
    return name == part or (name.startswith(".") <= part.startswith(".") and fnmatchcase(name, part))
