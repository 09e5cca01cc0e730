"""The environment of a job: its variables, and its own Python environment with the packages it requires."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

# What a program needs to find its tools, a package index and a proxy. The rest of the service's environment, secrets
# above all, is not for jobs.
_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_[A-Z]+|TZ|TMPDIR"
    r"|https?_proxy|HTTPS?_PROXY|all_proxy|ALL_PROXY|no_proxy|NO_PROXY"
    r"|SSL_CERT_FILE|SSL_CERT_DIR|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|PIP_[A-Z_]+|UV_[A-Z_]+"
)

# uv does not read pip's variables. If a machine has a mirror for pip, uv is to use it too.
_UV_NAMES = {"PIP_INDEX_URL": "UV_DEFAULT_INDEX", "PIP_EXTRA_INDEX_URL": "UV_INDEX", "PIP_FIND_LINKS": "UV_FIND_LINKS"}


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a job may see of the service's environment."""
    passed_on = {name: value for name, value in environment.items() if _PASSED_ON.fullmatch(name)}
    for_uv = {uv: passed_on[pip] for pip, uv in _UV_NAMES.items() if pip in passed_on}
    return {"PATH": os.defpath, **for_uv, **passed_on}


def job_environment(
    base: Mapping[str, str], python: Path, variables: Mapping[str, str], *, installed: bool
) -> dict[str, str]:
    """Return the variables of a job's command.

    Args:
        base: What `clean_environment` returned.
        python: The folder of the job's Python environment.
        variables: The job's own.
        installed: Whether its requirements are installed there already.
    """
    return {
        **base,
        "PATH": f"{python / 'bin'}{os.pathsep}{base['PATH']}",
        "VIRTUAL_ENV": str(python),
        # Lines appear in the log when they are printed, not when a buffer is full.
        "PYTHONUNBUFFERED": "1",
        # The command's own `pip install` then has nothing to do, and would report that for every package.
        **({"PIP_QUIET": "1"} if installed else {}),
        **variables,
    }


def create_commands(uv: str, python: Path) -> list[list[str]]:
    """The commands that create a Python environment: that of the service, with only pip in it.

    Each is the fallback of the one before: with the pip in the cache, with one from the package index, and with `venv`,
    which is slower and needs no index.
    """
    create = [uv, "venv", "--quiet", "--no-project", "--seed", "--clear", "--python", sys.executable, str(python)]
    return [[*create, "--quiet", "--offline"], create, [sys.executable, "-m", "venv", "--clear", str(python)]]


def install_command(uv: str, python: Path, requirements: str) -> list[str]:
    """The command that installs requirements; packages come from a cache that all jobs share."""
    return [uv, "pip", "install", "--python", str(python / "bin" / "python"), "--requirement", requirements]
