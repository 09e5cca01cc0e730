"""The state folder of a job, which is all that a supervisor and the service share.

```
spec.json        what is to be run, and which attempt is to be made; written by the service
lock             held locked by the supervisor for as long as it lives
supervisor.json  its process id, its number, the attempt that it makes, and the boot of the machine
preparing.txt    what is waited for before the command starts
started.json     when the command started, in which attempt, and what holds it
cancel           written by the service: the next SIGTERM is the wish of the tenant
log.txt, log.ndjson, and for a job that outlives its supervisor log.mark: see job_log.py
metrics.ndjson   the curves that the log tells: see log_curves.py
scalars.ndjson   those that TensorBoard's event files tell; scalars.json: how far these were read, and scalars.lock:
                 held while they are read; see event_files.py
model.json       the signatures of the SavedModel: see model_signatures.py
usage.ndjson     what it used, see usage_file.py
outcome.json     how it ended; what is left is to bring its files back
exit.json        the same, written when all is done and the log is complete
```

What a place keeps beside it is its own matter: the Python environment of a process in `env/`, what a container writes
to in `container/`, the copy of the files that a process works on in `files/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

import psutil

SPECIFICATION = "spec.json"
LOCK = "lock"
SUPERVISOR = "supervisor.json"
JOB_VARIABLE = "AIRFLOW_TRAINING_JOB"
"""Every process of a job has this variable, its state folder: so it is found where a supervisor was killed."""

PREPARING = "preparing.txt"
STARTED = "started.json"
CANCEL = "cancel"
OUTCOME = "outcome.json"
EXIT = "exit.json"

WORK = "files"
"""The copy of its files that a process works on."""


@contextlib.contextmanager
def lock_of(state: Path) -> Iterator[bool]:
    """Take the lock that a supervisor holds for as long as it lives; False where one does."""
    with (state / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def is_supervised(state: Path) -> bool:
    """Whether a supervisor lives."""
    with lock_of(state) as held:
        return not held


def name_of(state: Path) -> str:
    """The name of what a job has on its machine: its control group, its container. No two services share one."""
    return f"airflow-training-{hashlib.sha256(str(state).encode()).hexdigest()[:20]}"


def boot_id() -> str:
    """What tells this boot of the machine from every other. Source: random(4)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(psutil.boot_time())
