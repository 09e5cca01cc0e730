"""The runner that starts jobs as processes of this machine; it refuses a job for a Python that the machine lacks."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import replace
from shutil import which

from uv import find_uv_bin

from airflow_training.api.description import Execution, JobDescription
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.runners.run_folder import Spec
from airflow_training.service.runners.service import SupervisedRunner
from airflow_training.service.runners.supervisor.environment import (
    OWN_PYTHON,
    clean_environment,
    find_python,
    installed_pythons,
)
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
        installed = ", ".join(installed_pythons(find_uv_bin(), clean_environment(os.environ)))
        return InvalidDescription(
            f"The job needs Python {version}, but this service runs jobs as processes of a machine with Python"
            f" {installed}: request a version that it has, or ask the administrator of the service to install"
            " another or to use the container runner, where the image has its own Python.",
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

    It is requested by `pythonVersion`, by `pythonMajorVersion`, or by a program in the command.

    >>> missing_python(Execution(command="pip2 install six && python2 train.py", completion_time=60))
    '2'
    """
    own = execution.python_version or OWN_PYTHON
    if not find_python(find_uv_bin(), own, clean_environment(os.environ)):
        return own
    requested = [str(execution.python_major_version)] if execution.python_major_version else []
    requested += [found[1] for program in _programs(execution.command) if (found := _PROGRAM.fullmatch(program))]
    return next((version for version in requested if not _is_installed(version, own)), None)


def _is_installed(version: str, own: str) -> bool:
    """Whether it is the Python of the job's environment, or one of the machine, which a command may also name."""
    return version in ("3", own) or (version.startswith("3.") and which(f"python{version}") is not None)


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
