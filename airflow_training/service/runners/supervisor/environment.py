"""The environment of a job: its variables, and its own Python environment with the packages it requires."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from airflow_training.service.atomic_files import read_untrusted

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

OWN_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
"""The version of this process's Python, which jobs get unless they request another."""

# Seconds. A search runs each Python on PATH that uv has not seen before.
_TIMEOUT = 60


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


def find_python(uv: str, version: str, base: Mapping[str, str]) -> str:
    """Find a version of Python on this machine; nothing is downloaded.

    Args:
        uv: The program.
        version: The version, such as `3.12`.
        base: What `clean_environment` returned.

    Returns:
        The interpreter; empty if the machine has no such version.
    """
    if version == OWN_PYTHON:
        return sys.executable
    return _output([uv, "python", "find", "--no-project", "--system", version], base).strip()


def installed_pythons(uv: str, base: Mapping[str, str]) -> list[str]:
    """List the versions of Python on this machine, such as `3.12`, in their order."""
    found = json.loads(_output([uv, "python", "list", "--only-installed", "--output-format", "json"], base) or "[]")
    versions = {(each["version_parts"]["major"], each["version_parts"]["minor"]) for each in found}
    return [f"{major}.{minor}" for major, minor in sorted(versions | {sys.version_info[:2]})]


def create_commands(uv: str, python: Path, interpreter: str) -> list[list[str]]:
    """The commands that create a Python environment: that of an interpreter, with only pip in it.

    Each is the fallback of the one before: with the pip in the cache, with one from the package index, and with `venv`,
    which is slower and needs no index.
    """
    create = [uv, "venv", "--quiet", "--no-project", "--seed", "--clear", "--python", interpreter, str(python)]
    return [[*create, "--quiet", "--offline"], create, [interpreter, "-m", "venv", "--clear", str(python)]]


def install_command(uv: str, python: Path, requirements: str) -> list[str]:
    """The command that installs requirements; packages come from a cache that all jobs share."""
    return [uv, "pip", "install", "--python", str(python / "bin" / "python"), "--requirement", requirements]


def installed_packages(uv: str, python: Path, folder: Path, base: Mapping[str, str]) -> str:
    """List the packages of a Python environment as requirements that make the same one again.

    Args:
        uv: The program.
        python: The folder of the environment.
        folder: The job's folder: packages that were installed from it are named by their relative paths.
        base: What `clean_environment` returned.

    Returns:
        The requirements, below a comment with the version of Python; empty if there are no packages, or if the job has
        damaged the environment.
    """
    # The job may have replaced its Python, and what that runs here has no limits.
    places = [word for place in python.glob("lib/python3*/site-packages") for word in ("--path", str(place))]
    frozen = _output([uv, "pip", "freeze", "--python", sys.executable, *places], base) if places else ""
    # Each environment has a pip, without which nothing could be installed.
    packages = [line for line in frozen.splitlines() if not line.startswith("pip==")]
    header = f"# Python {_version(python)}"
    local = re.compile(rf"(?:\S+ @ )?file://{re.escape(quote(str(folder.resolve())))}([^#]*).*")
    return "\n".join([header, *(local.sub(r".\1", line) for line in packages), ""]) if packages else ""


def _version(python: Path) -> str:
    """The version of an environment's Python, by its record; empty if there is none."""
    with suppress(OSError):
        record = read_untrusted(python / "pyvenv.cfg", 4096).decode(errors="replace")
        if found := re.search(r"^version(?:_info)? *= *([0-9]\S*)", record, re.MULTILINE):
            return found[1]
    return ""


def _output(command: list[str], base: Mapping[str, str]) -> str:
    """What a program prints; nothing if it fails."""
    environment = {**base, "UV_PYTHON_DOWNLOADS": "never"}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, timeout=_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace")
