"""Which Python a command wants, and whether this machine has it."""

from __future__ import annotations

import re
import shlex
import sys
from shutil import which

from airflow_training.api.description import Execution

_PROGRAM = re.compile(r"(?:python|pip)(\d+(?:\.\d+)?)")
_SEPARATOR = re.compile(r"[;&|()]+")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_PREFIXES = frozenset({"exec", "env", "nohup", "nice", "time", "command", "if", "then", "else", "do", "while", "!"})


def missing_python(execution: Execution) -> str | None:
    """The version of Python that a job wants and this machine has not; None where there is no such want.

    A client says so by `pythonMajorVersion`, a command by the programs that it runs.

    >>> missing_python(Execution(command="pip2 install six && python2 train.py", completion_time=60))
    '2'
    """
    wanted = [str(execution.python_major_version)] if execution.python_major_version else []
    wanted += [found[1] for program in _programs(execution.command) if (found := _PROGRAM.fullmatch(program))]
    return next((version for version in wanted if not _is_here(version)), None)


def _is_here(version: str) -> bool:
    """A job's environment has the Python of the service; beside it, a Python 3 of the machine may be named in full."""
    major, minor = str(sys.version_info.major), str(sys.version_info.minor)
    return version in (major, f"{major}.{minor}") or (
        version.startswith(f"{major}.") and which(f"python{version}") is not None
    )


def _programs(command: str) -> list[str]:
    """The programs that a command line starts, as far as it can be told without running it."""
    lexer = shlex.shlex(command.replace("\n", " ; "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    programs, expected = [], True
    try:
        for word in lexer:
            if _SEPARATOR.fullmatch(word):
                expected = True
            elif expected and not _ASSIGNMENT.fullmatch(word) and word not in _PREFIXES:
                programs.append(word.rpartition("/")[2])
                expected = False
    except ValueError:  # a quotation that does not end: the shell will say so
        pass
    return programs
