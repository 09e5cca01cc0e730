"""What a job hands on: its SavedModel, the file or folder that its `model` names, or its folder.

All files here are names below the job folder, and so are the results; `.` is the job folder itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from fnmatch import translate
from functools import partial
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

# A model in its newest version: its name without the version, the version, -1 without one, and its path.
_Model = tuple[PurePosixPath, int, str]


def model_of_description(model: str | None) -> str | None:
    """The `model` of a task for that of a description, where None is the default and an empty text is nothing.

    >>> model_of_description(None), model_of_description(""), model_of_description("model.joblib")
    ('SavedModel', None, 'model.joblib')
    """
    return SAVED_MODEL if model is None else model or None


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
        found = [_version(path.parent) for path in map(PurePosixPath, left) if path.name == MARKER]
    else:
        path = str(PurePosixPath(model))
        # The service or the task may have written them, after an earlier look.
        matches = _matches((file for file in left if file not in _NOT_OF_THE_SCRIPT or file == path), path)
        found = [_newest(path, entries) for path, entries in matches.items()]
    newest: dict[PurePosixPath, _Model] = {}
    for each in found:
        newest[each[0]] = max(newest.get(each[0], each), each, key=lambda found: found[1:])
    ranked = sorted(newest.values(), key=partial(_rank, by_stem=model != SAVED_MODEL))
    return [path for _, _, path in ranked]


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


def _version(path: PurePosixPath) -> _Model:
    return (path.parent, int(path.name), str(path)) if path.name.isdecimal() else (path, -1, str(path))


def _newest(path: str, entries: Collection[tuple[str, bool]]) -> _Model:
    """The newest version of a match.

    Args:
        path: The match.
        entries: The names in it, and whether they are folders.
    """
    if entries and all(is_folder and name.isdecimal() for name, is_folder in entries):
        return _version(PurePosixPath(path, max((name for name, _ in entries), key=int)))
    return _version(PurePosixPath(path))


def _rank(found: _Model, *, by_stem: bool) -> tuple[bool, bool, int, bool, str]:
    name, version, _ = found
    checkpoint = _CHECKPOINT.search(str(name)) is not None
    return checkpoint, version < 0, len(name.parts), (name.stem if by_stem else name.name) != "model", str(name)


def _matches(files: Iterable[str], path: str) -> dict[str, set[tuple[str, bool]]]:
    """The outermost files and folders that match, with the names in each and whether these are folders."""
    glob = _Glob(path)
    # What is above many files is matched once.
    known: dict[str, frozenset[int]] = {}
    found: dict[str, set[tuple[str, bool]]] = defaultdict(set)
    for file in files:
        state, place, rest = glob.begin, "", file
        while rest and state:
            name, _, rest = rest.partition("/")
            place = f"{place}/{name}" if place else name
            if place not in known:
                known[place] = glob.next(state, name)
            state = known[place]
            if glob.is_whole(state):
                entry, is_folder, _ = rest.partition("/")
                found[place].update([(entry, bool(is_folder))] if entry else [])
                break
    return found


class _Glob:
    """A glob, matched name by name along a path; a state has the parts that the next name may match."""

    def __init__(self, path: str) -> None:
        parts = path.split("/")
        self._parts = [part for part, before in zip(parts, ["", *parts], strict=False) if not part == before == "**"]
        self._regexes = [re.compile(translate(part)) for part in self._parts]
        self.begin = self._reached({0})

    def next(self, state: frozenset[int], name: str) -> frozenset[int]:
        """The state after another name."""
        matched = (at for at in state if at < len(self._parts) and self._matches(at, name))
        return self._reached({at if self._parts[at] == "**" else at + 1 for at in matched})

    def is_whole(self, state: frozenset[int]) -> bool:
        """Whether the names so far match."""
        return len(self._parts) in state

    def _matches(self, at: int, name: str) -> bool:
        part = self._parts[at]
        # A name may contain what means something else in a glob.
        return name == part or (
            name.startswith(".") <= part.startswith(".") and self._regexes[at].match(name) is not None
        )

    def _reached(self, state: set[int]) -> frozenset[int]:
        folders = {at + 1 for at in state if at < len(self._parts) and self._parts[at] == "**"}
        return frozenset(state | folders)
