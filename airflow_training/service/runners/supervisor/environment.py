"""The environment of a job: variables, and Python packages of its own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

# What a program needs to find its tools, a package index and the way through a proxy. Whatever else stands in the
# service's environment, secrets above all, is none of the job's business.
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_[A-Z]+|TZ|TMPDIR"
    r"|https?_proxy|HTTPS?_PROXY|all_proxy|ALL_PROXY|no_proxy|NO_PROXY"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|PIP_[A-Z_]+|UV_[A-Z_]+"
)

# uv does not read pip's variables. Where a machine has a mirror for pip, uv is to use it too.
_UV_NAMES = {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_EXTRA_INDEX_URL": "UV_INDEX", "PIP_FIND_LINKS": "UV_FIND_LINKS"}


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Keep of the service's environment what a job may see."""
    passed_on = {name: value for name, value in environment.items() if _PASSED_ON.fullmatch(name)}
    for_uv = {uv: passed_on[pip] for pip, uv in _UV_NAMES.items() if pip in passed_on}
    return {"PATH": os.defpath, **for_uv, **passed_on}


def job_environment(
    base: Mapping[str, str], python: Path, variables: Mapping[str, str], *, installed: bool
) -> dict[str, str]:
    """Make the variables of a job's command.

    Args:
        base: What `clean_environment` left.
        python: The folder of the job's Python environment.
        variables: The job's own.
        installed: Whether its requirements are in there already.
    """
    return {
        **base,
        "PATH": f"{python / 'bin'}{os.pathsep}{base['PATH']}",
        "VIRTUAL_ENV": str(python),
        # Lines appear in the log when they are printed, not when a buffer is full.
        "PYTHONUNBUFFERED": "1",
        # The command's own `pip install` has nothing to do then, and would say so for every package.
        **({"PIP_QUIET": "1"} if installed else {}),
        **variables,
    }


def create_commands(uv: str, python: Path) -> list[list[str]]:
    """The commands that make a Python environment, that of the service with a pip and nothing else in it.

    Each is for where the one before fails: with the pip that the cache has, with one from the package index, and by
    Python's own means, which are slower and need no index.
    """
    create = [uv, "venv", "--quiet", "--no-project", "--seed", "--clear", "--python", sys.executable, str(python)]
    return [[*create, "--quiet", "--offline"], create, [sys.executable, "-m", "venv", "--clear", str(python)]]


def install_command(uv: str, python: Path, requirements: str) -> list[str]:
    """The command that installs requirements; packages come from a cache that all jobs share."""
    return [uv, "pip", "install", "--python", str(python / "bin" / "python"), "--requirement", requirements]
