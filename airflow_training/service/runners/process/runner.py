"""The runner that starts jobs as processes of this machine; it refuses a job that needs another Python."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from shutil import which

from airflow_training.api.description import Execution, JobDescription
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.runners.run_folder import Spec
from airflow_training.service.runners.service import SupervisedRunner
from airflow_training.service.scheduling.job import Order

_PROGRAM = re.compile(r"(?:python|pip)(\d+(?:\.\d+)?)")
_SEPARATOR = re.compile(r"[;&|()]+")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_PREFIXES = frozenset({"exec", "env", "nohup", "nice", "time", "command", "if", "then", "else", "do", "while", "!"})


class ProcessRunner(SupervisedRunner):
    """Runs jobs as processes, each on a copy of its files."""

    kind = "process"

    def validation_error(self, description: JobDescription) -> InvalidDescription | None:
        """Refuse a job that needs a Python that this machine does not have."""
        if not (version := missing_python(description.execution)):
            return None
        return InvalidDescription(
            f"The job needs Python {version}, but this service runs jobs as processes, with Python"
            f" {sys.version_info.major}.{sys.version_info.minor}: port the script, or ask the administrator of the"
            " service to use the container runner, where the image has its own Python.",
            status=422,
            code="AT-629",
        )

    def _complete(self, spec: Spec, order: Order) -> Spec:
        if not (image := order.description.execution.image):
            return spec
        note = f"This service runs jobs as processes: the image {image} is ignored."
        return replace(spec, notes=[note, *spec.notes])


def missing_python(execution: Execution) -> str | None:
    """The version of Python that a job needs and this machine does not have; None if there is none.

    It is requested by `pythonMajorVersion`, or by a program in the command.

    >>> missing_python(Execution(command="pip2 install six && python2 train.py", completion_time=60))
    '2'
    """
    requested = [str(execution.python_major_version)] if execution.python_major_version else []
    requested += [found[1] for program in _programs(execution.command) if (found := _PROGRAM.fullmatch(program))]
    return next((version for version in requested if not _is_installed(version)), None)


def _is_installed(version: str) -> bool:
    """A job's environment has the Python of the service; a command may also name a Python 3 of the machine."""
    major, minor = str(sys.version_info.major), str(sys.version_info.minor)
    return version in (major, f"{major}.{minor}") or (
        version.startswith(f"{major}.") and which(f"python{version}") is not None
    )


def _programs(command: str) -> list[str]:
    """The programs that a command line starts, as far as its text shows."""
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
    except ValueError:  # an unterminated quotation: the shell will report it
        pass
    return programs
