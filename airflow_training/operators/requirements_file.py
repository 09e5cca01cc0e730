"""The requirements of a job from a file: a requirements file as it is, a lock as pinned requirements.

A lock becomes lines that pip and uv install alike, with its versions, markers and hashes, so that the job needs neither
the lock nor the tool that wrote it.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from airflow.sdk import ObjectStoragePath
from fsspec.implementations.local import LocalFileSystem
from packaging.pylock import Package, Pylock, PylockValidationError, is_valid_pylock_path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PROJECT, _UV_LOCK, _PYLOCK = "pyproject.toml", "uv.lock", "pylock.toml"

# Seconds for uv, which reads two files.
_TIMEOUT = 60

# Those that pip knows. Source: pip's documentation, "Secure installs".
_HASHES = ("sha256", "sha384", "sha512")
_HASH_OPTION = re.compile(r"\s*\\\n\s+--hash=\S+")
# Markers that only locks have. Source: PEP 751, "Dependency specifiers".
_GROUP = re.compile(r"(?P<quote>['\"])(?P<name>[^'\"]*)(?P=quote) (?P<no>not )?in (?P<kind>extras|dependency_groups)")
_ALWAYS, _NEVER = 'python_version >= "3"', 'python_version < "3"'


def read_requirements(file: ObjectStoragePath) -> str:
    """Read requirements from a file: `requirements.txt`, `pylock.toml`, `uv.lock`, or `pyproject.toml` with a lock.

    Raises:
        ValueError: It contains none, or cannot be converted; the text is the reason.
        OSError: It cannot be read.
    """
    if is_valid_pylock_path(Path(file.name)):
        return _same_for_all(_of_pylock(_text(file)))
    if file.name == _UV_LOCK:
        return _same_for_all(_of_uv_lock(file))
    if file.name == _PROJECT:
        for name in (_UV_LOCK, _PYLOCK):
            if (lock := file.parent / name).exists():
                return read_requirements(lock)
        raise ValueError(f"it has no lock beside it, {_UV_LOCK} or {_PYLOCK}; `uv lock` writes one")
    if file.suffix in (".toml", ".lock"):
        raise ValueError(f"it is not a lock called {_PYLOCK}, pylock.NAME.toml or {_UV_LOCK}")
    return _text(file)


def _text(file: ObjectStoragePath) -> str:
    try:
        return file.read_bytes().decode()
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None


def _of_uv_lock(lock: ObjectStoragePath) -> str:
    if not (uv := _find_uv()):
        raise ValueError(
            f"that needs uv on the worker: install it there, or name a {_PYLOCK}, which"
            f" `uv export --format {_PYLOCK} --output-file {_PYLOCK}` writes"
        )
    if not isinstance(lock.fs, LocalFileSystem):
        raise ValueError(f"uv reads it from a disk only; a {_PYLOCK} may be in a store")
    if not (lock.parent / _PROJECT).exists():
        raise ValueError(f"it has no {_PROJECT} beside it")
    # The cache is of no use, and a worker may have no folder for it.
    command = [uv, "export", "--frozen", "--no-emit-project", "--no-dev", "--no-header", "--no-annotate", "--no-cache"]
    try:
        done = subprocess.run(
            command, cwd=lock.parent.path, capture_output=True, text=True, timeout=_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(f"uv did not export it within {_TIMEOUT} seconds") from None
    if done.returncode:
        reason = " ".join(done.stderr.split()).rpartition("error: ")[2]
        raise ValueError(f"uv cannot export it: {reason[:300]}")
    return done.stdout


def _find_uv() -> str | None:
    try:
        from uv import find_uv_bin  # noqa: PLC0415 - an extra

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")


def _of_pylock(text: str) -> str:
    try:
        lock = Pylock.from_dict(tomllib.loads(text))
    except PylockValidationError as error:
        raise ValueError(f"it is not a lock of PEP 751: {error}") from None
    groups = lock.default_groups or ()
    return "".join(f"{line}\n" for package in lock.packages if (line := _requirement(package, groups)))


def _requirement(package: Package, groups: Sequence[str]) -> str:
    """The line of a package; empty for the project itself, whose code comes as the script."""
    name = package.name
    files: list[Mapping[str, str]] = []
    if package.directory:
        if posixpath.normpath(package.directory.path) == ".":
            return ""
        line = _local(package.directory.path, package.directory.subdirectory)
    elif package.vcs:
        if not package.vcs.url:
            raise ValueError(f"{name} comes from a local repository, which a job does not have")
        source = f"{package.vcs.type}+{package.vcs.url}@{package.vcs.commit_id}"
        line = f"{name} @ {source}{_fragment(package.vcs.subdirectory)}"
    elif package.archive:
        files = [package.archive.hashes]
        url = package.archive.url
        line = f"{name} @ {url}{_fragment(package.archive.subdirectory)}" if url else _local(package.archive.path or "")
    else:
        if not package.version:
            raise ValueError(f"it has no version of {name}")
        files = [file.hashes for file in (*(package.wheels or ()), package.sdist) if file]
        line = f"{name}=={package.version}"
    if package.marker:
        line += f" ; {_GROUP.sub(lambda test: _evaluated(test, groups), str(package.marker))}"
    hashes = [f"--hash={algorithm}:{each[algorithm]}" for each in files for algorithm in _HASHES if algorithm in each]
    return " \\\n    ".join([line, *dict.fromkeys(hashes)])


def _local(path: str, subdirectory: str | None = None) -> str:
    path = posixpath.normpath(posixpath.join(path, subdirectory or ""))
    if path.startswith("/") or path.split("/")[0] == "..":
        raise ValueError(f"it needs {path}, which is not below its folder and not in the job")
    return f"./{path}"


def _fragment(subdirectory: str | None) -> str:
    return f"#subdirectory={subdirectory}" if subdirectory else ""


def _evaluated(test: re.Match[str], groups: Sequence[str]) -> str:
    """A test of extras or groups, which pip does not know, as one that it does: no extras, and the default groups."""
    chosen = test["kind"] == "dependency_groups" and test["name"] in groups
    return _NEVER if chosen == bool(test["no"]) else _ALWAYS


def _same_for_all(requirements: str) -> str:
    """Leave out the hashes unless each package has one: pip installs either all with hashes or none."""
    packages = [entry for entry in re.split(r"\n(?=\S)", requirements.strip()) if not entry.startswith("#")]
    if all("--hash=" in package for package in packages):
        return requirements
    return _HASH_OPTION.sub("", requirements)
