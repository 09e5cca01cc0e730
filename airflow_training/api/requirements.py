"""Python requirements: errors that are certain, and the local files they name.

Only requirements of PEP 508 are checked. URLs, options and paths are left to pip: the pip in the image may support
more or fewer of them than a library on the worker.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement

REQUIREMENTS_FILE = "requirements.txt"

_COMMENT = re.compile(r"(^|\s+)#.*")
_VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NAMED_URL = re.compile(r"[\w.-]+\s*(\[[^]]*\])?\s*@")
_ARCHIVE = re.compile(r"\S+\.(whl|zip|tar|tgz|tbz|txz|tlz|tar\.(gz|bz2|xz|lz|lzma))", re.IGNORECASE)
# Options with a file or a folder; that of --find-links may be a URL as well.
_FILE_OPTION = re.compile(
    r"(-[rcef]\s*|--(requirement|constraint|editable|find-links)(\s*=\s*|\s+))"
    r"(?P<quote>['\"]?)(?P<place>[^\s'\"]+)(?P=quote)"
)
# No package on PyPI has such a name, but requirements files and locks do.
_NAME_OF_A_FILE = re.compile(r"[^-#;\s][^#;\n]*\.(txt|in|toml|lock)", re.IGNORECASE)


class _Line(NamedTuple):
    """A requirement or an option without comments, and the number of its first line."""

    number: int
    text: str

    def __str__(self) -> str:
        text = self.text if len(self.text) <= 60 else f"{self.text[:57]}…"
        return f"line {self.number}, {text!r},"


def is_name_of_a_file(requirements: str) -> bool:
    """Whether requirements are the path or URI of a file that contains them, and not their text.

    >>> is_name_of_a_file("deps/requirements.txt"), is_name_of_a_file("numpy"), is_name_of_a_file("-r more.txt")
    (True, False, False)
    """
    return _NAME_OF_A_FILE.fullmatch(requirements.strip()) is not None


def check_requirements(text: str) -> str:
    """Return requirements without a byte order mark; raises ValueError for an invalid one.

    >>> check_requirements("six==1.17.0; python_version > '3'\\n./wheels/a.whl")
    "six==1.17.0; python_version > '3'\\n./wheels/a.whl"
    """
    text = text.removeprefix("\ufeff")
    for line in _lines(text):
        if _names_itself(line.text) or (is_name_of_a_file(line.text) and not _URL.match(line.text)):
            raise ValueError(
                f"{line} is the name of a file: give the name alone, such as requirements='requirements.txt', and the"
                " task reads that file"
            )
        requirement = _without_options(line.text)
        if not requirement or _URL.match(requirement) or _VARIABLE.search(requirement) or _local(requirement):
            continue
        try:
            Requirement(requirement)
        except InvalidRequirement as error:
            # Further lines of the message mark the position.
            raise ValueError(
                f"{line} is not a requirement such as 'numpy>=2', nor a URL, a path or an option of pip:"
                f" {str(error).splitlines()[0]}"
            ) from None
    return text


def missing_files(text: str, files: Iterable[str]) -> list[str]:
    """List the local files in requirements that are missing in the job folder, one sentence each.

    Args:
        text: The requirements.
        files: The files and folders to be uploaded into the job folder.
    """
    there = [PurePosixPath(name) for name in files]
    return [
        f"must contain {str(place)!r}, since {line} of the requirements names it and pip looks in the job folder"
        for line in _lines(text)
        for place in _places(line.text)
        if not any(place == file or file in place.parents or place in file.parents for file in there)
    ]


def _lines(text: str) -> Iterator[_Line]:
    """Join lines that end with a backslash, and leave out comments, as pip does."""
    first, joined = 1, ""
    lines = text.splitlines()
    for number, line in enumerate(lines, start=1):
        if not joined:
            first = number
        comment = _COMMENT.match(line)
        joined += f" {line}" if comment else line
        if line.endswith("\\") and not comment and number < len(lines):
            joined = joined.rstrip("\\") + " "
        else:
            if found := _COMMENT.sub("", joined.rstrip("\\")).strip():
                yield _Line(first, found)
            joined = ""


def _without_options(line: str) -> str:
    """The line without options such as `--hash`; empty if the line itself is an option."""
    return re.split(r"(?:^|\s+)-", line, maxsplit=1)[0].strip()


def _names_itself(line: str) -> bool:
    # The text of the requirements itself becomes the file of that name.
    option = _FILE_OPTION.match(line)
    return option is not None and posixpath.normpath(option["place"]) == REQUIREMENTS_FILE


def _local(requirement: str) -> str:
    """The path in a requirement; as for pip, a path begins with a dot, has a slash, or is the name of an archive."""
    if _URL.match(requirement) or _NAMED_URL.match(requirement):
        return ""
    place = re.sub(r"\[[^]]*\]$", "", requirement.partition(";")[0].strip())
    return place if place.startswith(".") or "/" in place or _ARCHIVE.fullmatch(place) else ""


def _places(line: str) -> Iterator[PurePosixPath]:
    """The local files and folders in a line; an absolute path may be in the image."""
    option = _FILE_OPTION.match(line)
    place = option["place"] if option else _local(_without_options(line))
    if place and not place.startswith(("/", "~")) and not _URL.match(place) and not _VARIABLE.search(place):
        yield PurePosixPath(posixpath.normpath(place))
