"""The files below a folder, wherever it lies."""

from __future__ import annotations

from airflow.sdk import ObjectStoragePath


def files_below(folder: ObjectStoragePath) -> dict[str, ObjectStoragePath]:
    """Find the files of a folder and of its subfolders, by their names within it.

    universal-pathlib does not know the relative paths of every file system.
    """
    root = folder.path.rstrip("/") + "/"
    names = sorted(str(path).removeprefix(root) for path in folder.fs.find(root))
    return {name: folder / name for name in names}
