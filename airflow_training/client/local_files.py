"""The files of this machine behind a path, found with all that is wrong with them before one is sent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_SHOWN = 3


def local_files(path: Path) -> dict[str, Path]:
    """Find a file, whose name is then empty, or all files below a folder: name below the folder → file.

    Links are followed, also those to folders: a mounted ConfigMap and a git-sync checkout consist of them.

    Raises:
        ValueError: Something there cannot be sent; names the first few of all such things.
    """
    found: dict[str, Path] = {}
    mistakes: list[str] = []
    # With each folder go those above it, by which a link that leads back is known.
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
            elif mistake := _mistake(file, status.st_mode):
                mistakes.append(mistake)
            else:
                found[name] = file
        except UnicodeEncodeError:
            mistakes.append(f"{str(file)!r} has a name that is not UTF-8")
        except FileNotFoundError:
            link = f" is a link to {file.readlink()}, which" if file.is_symlink() else ""
            mistakes.append(f"{file}{link} does not exist")
        except OSError as error:
            # Links to each other, a folder that may not be read, a name that is too long.
            mistakes.append(str(error))
    if mistakes:
        more = f"; and {len(mistakes) - _SHOWN} more" if len(mistakes) > _SHOWN else ""
        raise ValueError("; ".join(mistakes[:_SHOWN]) + more)
    return found


def _mistake(file: Path, mode: int) -> str:
    """Why something that is there cannot be sent; empty if it can."""
    if stat.S_ISDIR(mode):
        return f"{file} is a link that leads back to {file.resolve()}, which holds it"
    if not stat.S_ISREG(mode):
        # To open a pipe is to wait for a program that writes into it.
        return f"{file} is no file but a pipe, a socket or a device"
    return "" if os.access(file, os.R_OK) else f"{file} cannot be read: Permission denied"
