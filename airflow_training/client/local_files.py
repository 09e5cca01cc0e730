"""The local files behind a path, checked before the first is uploaded."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_SHOWN = 3


def local_files(path: Path) -> dict[str, Path]:
    """Find all files below a folder, by their path in it; or a single file, by an empty name.

    Links are followed, including those to folders: a mounted ConfigMap and a git-sync checkout consist of them.

    Raises:
        ValueError: Something there cannot be uploaded; lists the first few reasons.
    """
    found: dict[str, Path] = {}
    errors: list[str] = []
    # Each folder comes with its parents, to detect a link that leads back.
    waiting: list[tuple[str, Path, frozenset[tuple[int, int]]]] = [("", path, frozenset())]
    while waiting:
        name, file, above = waiting.pop()
        try:
            # The storage has no key for a name that is not UTF-8.
            name.encode()
            status = file.stat()
            this = (status.st_dev, status.st_ino)
            if stat.S_ISDIR(status.st_mode) and this not in above:
                entries = sorted(file.iterdir(), reverse=True)
                waiting += [(f"{name}/{entry.name}".lstrip("/"), entry, above | {this}) for entry in entries]
            elif error := _why_not(file, status.st_mode):
                errors.append(error)
            else:
                found[name] = file
        except UnicodeEncodeError:
            errors.append(f"{str(file)!r} has a name that is not UTF-8")
        except FileNotFoundError:
            link = f" is a link to {file.readlink()}, which" if file.is_symlink() else ""
            errors.append(f"{file}{link} does not exist")
        except OSError as failure:
            # Links to each other, an unreadable folder, a name that is too long.
            errors.append(str(failure))
    if errors:
        more = f"; and {len(errors) - _SHOWN} more" if len(errors) > _SHOWN else ""
        raise ValueError("; ".join(errors[:_SHOWN]) + more)
    return found


def _why_not(file: Path, mode: int) -> str:
    """Why an existing file cannot be uploaded; empty if it can."""
    if stat.S_ISDIR(mode):
        return f"{file} is a link that leads back to {file.resolve()}, which contains it"
    if not stat.S_ISREG(mode):
        # Opening a pipe would wait for a program that writes to it.
        return f"{file} is not a file but a pipe, a socket or a device"
    return "" if os.access(file, os.R_OK) else f"{file} cannot be read: Permission denied"
