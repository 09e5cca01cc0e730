"""What is in the container of a job beside its command: the first process, its variables, its home."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow_training.service.runners.container.state import HOME, folder_of

# Where a job finds its things; the folder of the job is below /data.
HOME_IN_CONTAINER = "/airflow-training"

# The first process passes the request to end on to all others, which the kernel does not do, and writes down whether
# the kernel had to end one for want of memory. Source: cgroup v2's memory.events, cgroup v1's memory.oom_control.
# A wait that the request interrupts says nothing of the command, and is made once more; 127 then means that it had
# told all before.
FIRST_PROCESS = """
trap 'told=1; kill -TERM -1' TERM
/bin/sh -c "$1" &
while
    told=
    wait $!
    now=$?
    [ $now -eq 127 ] && [ -n "$status" ] || status=$now
    [ -n "$told" ]
do :; done
cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control > "$2" 2> /dev/null
exit $status
"""
MEMORY = ".memory"
_OUT_OF_MEMORY = re.compile(r"^oom_kill [1-9]", re.MULTILINE)


def environment(image: Mapping[str, Any]) -> dict[str, str]:
    """What a job finds beside its own variables."""
    of_image = {name: value for name, _, value in (v.partition("=") for v in image["Config"].get("Env") or ())}
    path = of_image.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {
        "HOME": HOME_IN_CONTAINER,
        # `pip install` writes to the home, since a job may not change its image; Debian's pip has to be told to.
        "PATH": f"{HOME_IN_CONTAINER}/.local/bin:{path}",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        # Lines appear in the log when they are printed, not when a buffer is full.
        "PYTHONUNBUFFERED": "1",
    }


def wanted_memory(state: Path) -> bool:
    """Whether the first process noted a want of memory; the job may have put anything in the place of its note."""
    try:
        descriptor = os.open(folder_of(state) / HOME / MEMORY, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)
        return is_file and bool(_OUT_OF_MEMORY.search(os.read(descriptor, 4096).decode(errors="replace")))
    finally:
        os.close(descriptor)
