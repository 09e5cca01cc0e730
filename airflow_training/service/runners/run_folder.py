"""The run folder of a job: the contract between the service, the job's supervisor and its helpers.

These processes may run different versions of this package: a supervisor outlives an upgrade of the service. So each
record is a class of this module, which alone reads and writes its file.

```
spec.json        `Spec`: the job, and the attempt to make; written by the service
lock             held by the supervisor for as long as it lives
supervisor.json  `SupervisorRecord`: the supervisor that took up the job
preparing.txt    what the job waits for before its command starts
inputs.json      the files that the job began with, see `read_inputs`
failure.txt      why a helper failed, or why the job was ended where it runs
started.json     `Started`: the command runs
cancel           written by the service: the next SIGTERM cancels the job
submission.json  `Submission`: the job in Ray
log.txt, log.ndjson, and for a job that outlives its supervisor log.checkpoint: see job_log.py
metrics.ndjson   the curves of the log: see log_curves.py
scalars.ndjson   the curves of TensorBoard's event files, with scalars.json and scalars.lock: see event_files.py
model.json       the signatures of the model: see signatures.py
usage.ndjson     the resource usage: see usage.py
outcome.json     `Outcome`: the command has ended; its files are still to be copied back
exit.json        `Exit`: all is done, and the log is complete
```

Each backend adds its own: a process the Python environment in `env/` and its copy of the job's files in `files/`,
a container all that it can write to in `container/`.

A node of Ray imports this module, so it needs msgspec and psutil only.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import msgspec
import psutil

from airflow_training.exceptions import TrainingError
from airflow_training.service.atomic_files import read_json, try_lock_file, write_atomic, write_json

VERSION = 1
"""The version of the records. A field that is removed, changes its meaning, or has no default needs another one."""

RunnerKind = Literal["process", "container", "ray"]

JOB_VARIABLE = "AIRFLOW_TRAINING_JOB"
"""The run folder, in each process of a job: identifies the processes after their supervisor was killed."""

WORK = "files"
"""The copy of its files that a process works on."""

_LOCK = "lock"
_CANCEL = "cancel"
_PREPARING = "preparing.txt"
_INPUTS = "inputs.json"
_FAILURE = "failure.txt"

_R = TypeVar("_R", bound="_Record")


class UnreadableRecord(TrainingError):
    """A record of a job was written by another version of the service, or is damaged."""


@dataclass(frozen=True)
class _Versioned:
    """The part of a record by which another version is recognized."""

    version: Any = None


class _Record:
    """A dataclass that is kept as a JSON document."""

    FILE: ClassVar[str]

    @classmethod
    def exists(cls, state: Path) -> bool:
        """Whether the run folder has the record."""
        return (state / cls.FILE).exists()

    @classmethod
    def find(cls: type[_R], state: Path) -> _R | None:
        """Read the record from a run folder; None if it is not there.

        Raises:
            UnreadableRecord: It is not a record of this version.
        """
        try:
            content = (state / cls.FILE).read_bytes()
        except FileNotFoundError:
            return None
        return cls.from_json(content)

    @classmethod
    def read(cls: type[_R], state: Path) -> _R:
        """Read the record from a run folder.

        Raises:
            UnreadableRecord: It is not there, or not a record of this version.
        """
        if (record := cls.find(state)) is None:
            raise _unreadable(cls, "it is missing")
        return record

    @classmethod
    def from_json(cls: type[_R], content: bytes) -> _R:
        """Read the record from JSON; unknown fields are ignored.

        Raises:
            UnreadableRecord: It is not a record of this version.
        """
        try:
            if cls is Spec and (found := msgspec.json.decode(content, type=_Versioned).version) != VERSION:
                raise _unreadable(cls, f"its version is {found}, not {VERSION}")
            # Its errors name types and places, never values, which may be secrets.
            return msgspec.json.decode(content, type=cls)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _unreadable(cls, str(error)) from error

    def to_json(self) -> bytes:
        """The record as JSON."""
        return msgspec.json.encode(self)

    def write(self, state: Path) -> None:
        """Write the record: it is there completely or not at all, after a power failure too.

        Raises:
            OSError: The disk is full, for example.
        """
        write_atomic(state / self.FILE, self.to_json())


@dataclass(frozen=True)
class JobLimits:
    """What a job may use.

    Attributes:
        cpus: CPUs.
        memory: MB.
        disk: MB in its folder.
        log: Bytes of its output that are kept.
        seconds: How long its command may run; None without a limit.
    """

    cpus: int
    memory: int
    disk: int
    log: int
    seconds: float | None


@dataclass(frozen=True)
class ContainerSpec:
    """What the container runner adds.

    Attributes:
        image: The image.
        mount: The working directory in the container.
        engine: The variables that locate the engine, such as `DOCKER_HOST`.
        labels: The labels of the container.
    """

    image: str
    mount: str
    engine: dict[str, str]
    labels: dict[str, str]


@dataclass(frozen=True)
class RaySpec:
    """What the Ray runner adds.

    Attributes:
        tenant: The tenant, for Ray's metadata.
        job_id: The id of the job, with which its ids in Ray begin.
        address: The URL of the dashboard.
        headers: The headers of every request to it.
        storage_url: The URL of the service's S3 endpoint, as the nodes reach it.
        bucket: The bucket.
        folder: The folder of the job in it.
        keys_file: Where the keys of the endpoint are kept.
        storage_backend: What the endpoint serves to temporary credentials of the tenant.
    """

    tenant: str
    job_id: str
    address: str
    headers: dict[str, str]
    storage_url: str
    bucket: str
    folder: str
    keys_file: str
    storage_backend: dict[str, str]


@dataclass(frozen=True)
class Spec(_Record):
    """A job, and the attempt to make.

    Attributes:
        command: The command, for a shell.
        env: Its variables.
        masks: The secrets to mask in its log.
        files: Where its files are, as `Buckets.location` returns it: a `folder`, or a `store` and a `prefix`.
        limits: What it may use.
        gpus: The ids of its GPUs, as in `CUDA_VISIBLE_DEVICES`.
        retries: How often it runs again after a failure.
        runner: What it runs on.
        container: What only a container needs.
        ray: What only Ray needs.
        supervisor: The number of the supervisor that is to take it up, from 1.
        ended_early: How many supervisors in a row, up to now, ended soon after their start.
        attempt: The number of the attempt to make, from 1.
        notes: Lines of the service for its log.
        model: What it hands on, as its description has it.
        python: The version of Python in its environment; empty for that of what runs it. A container has its image's.
        version: The version of the records.
    """

    FILE: ClassVar[str] = "spec.json"

    command: str
    env: dict[str, str]
    masks: list[str]
    files: dict[str, str]
    limits: JobLimits
    gpus: list[str]
    retries: int
    runner: RunnerKind
    container: ContainerSpec | None = None
    ray: RaySpec | None = None
    supervisor: int = 1
    ended_early: int = 0
    attempt: int = 1
    notes: list[str] = field(default_factory=list)
    model: str | None = None
    python: str = ""
    version: int = VERSION

    @property
    def outlives_supervisor(self) -> bool:
        """Whether an attempt goes on without its supervisor, and the next one follows it."""
        return self.runner == "ray"


@dataclass(frozen=True)
class SupervisorRecord(_Record):
    """The supervisor that took up a job.

    Attributes:
        pid: Its process id.
        number: Its number, that of the `Spec`.
        attempt: The attempt that it makes.
        boot_id: The boot of the machine.
        at: When it took up the attempt, in seconds since 1970.
    """

    FILE: ClassVar[str] = "supervisor.json"

    pid: int
    number: int
    attempt: int
    boot_id: str
    at: float


@dataclass(frozen=True)
class Started(_Record):
    """The command runs.

    Attributes:
        container_id: What runs it, with its process id: the `containerID` of the status.
        at: When it started.
        attempt: In which attempt.
    """

    FILE: ClassVar[str] = "started.json"

    container_id: str
    at: datetime
    attempt: int


@dataclass(frozen=True)
class Outcome(_Record):
    """How a job ended.

    Attributes:
        state: Its state.
        message: Why it is not SUCCEEDED.
        exit_code: The exit status of its command; negative if a signal ended it, None if it did not run to an end.
    """

    FILE: ClassVar[str] = "outcome.json"

    state: Literal["SUCCEEDED", "FAILED", "CANCELED"]
    message: str = ""
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class Exit(Outcome):
    """The outcome of a job of which nothing is left to be done.

    Attributes:
        started: When its command started; None if it never did.
        finished: When all was done.
        log_bytes: The size of its log.
    """

    FILE: ClassVar[str] = "exit.json"

    started: datetime | None
    finished: datetime
    log_bytes: int


@dataclass(frozen=True)
class Submission(_Record):
    """A job in Ray.

    Attributes:
        submission_id: Its id there.
        access_key: The access key of its temporary credentials for the S3 endpoint.
        attempt: The attempt of the job that it is.
        accepted: Whether Ray has confirmed it.
        over: Whether its command has ended.
    """

    FILE: ClassVar[str] = "submission.json"

    submission_id: str
    access_key: str
    attempt: int
    accepted: bool = False
    over: bool = False

    @classmethod
    def of_current_attempt(cls, state: Path) -> Submission | None:
        """The submission of the attempt that the supervisor makes; None if there is none."""
        submission, supervisor = cls.find(state), SupervisorRecord.find(state)
        return submission if submission and supervisor and submission.attempt == supervisor.attempt else None

    @classmethod
    def remove(cls, state: Path) -> None:
        """Nothing of the job is in Ray any more."""
        (state / cls.FILE).unlink(missing_ok=True)


def try_lock(state: Path) -> contextlib.AbstractContextManager[bool]:
    """Take the lock that a supervisor holds for as long as it lives; yields False if one does."""
    return try_lock_file(state / _LOCK)


@contextlib.contextmanager
def wait_for_lock(state: Path) -> Iterator[None]:
    """Hold the lock of the supervisor, as soon as no other one does."""
    with (state / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_supervised(state: Path) -> bool:
    """Whether a supervisor lives."""
    with try_lock(state) as free:
        return not free


def request_cancel(state: Path) -> None:
    """Have the next SIGTERM, and the next supervisor, cancel the job."""
    (state / _CANCEL).touch()


def is_canceled(state: Path) -> bool:
    """Whether the job is to be canceled."""
    return (state / _CANCEL).exists()


def record_inputs(state: Path, versions: dict[str, str]) -> None:
    """Record the files that the job begins with, before its command starts."""
    write_json(state / _INPUTS, versions)


def read_inputs(state: Path) -> dict[str, str] | None:
    """The files that the job began with: their names, and their versions in the bucket; None if it has not begun."""
    return read_json(state / _INPUTS)


def note_waiting(state: Path, what: str) -> None:
    """Have the status of the job show what it waits for, unless the disk is full; an empty text for nothing."""
    with contextlib.suppress(OSError):
        write_atomic(state / _PREPARING, what.encode())


def waiting(state: Path) -> str:
    """What the job waits for before its command starts; an empty text for nothing."""
    return _text(state / _PREPARING)


def note_failure(state: Path, reason: str) -> None:
    """Have `failure` return why the job could not run, or was ended, unless the disk is full."""
    with contextlib.suppress(OSError):
        write_atomic(state / _FAILURE, reason.encode())


def failure(state: Path) -> str:
    """Why the job could not run, or was ended; an empty text if neither."""
    return _text(state / _FAILURE)


def clear_failure(state: Path) -> None:
    """Begin a new attempt."""
    (state / _FAILURE).unlink(missing_ok=True)


def unique_name(state: Path) -> str:
    """The name of the job's control group and of its container: unique among all services of the machine."""
    return f"airflow-training-{hashlib.sha256(str(state).encode()).hexdigest()[:20]}"


def boot_id() -> str:
    """The id of this boot of the machine. Source: random(4)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(psutil.boot_time())


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except FileNotFoundError:
        return ""


def _unreadable(record: type[_Record], reason: str) -> UnreadableRecord:
    return UnreadableRecord(
        f"the job was started by another version of the service, or its {record.FILE} is damaged: {reason}",
        code="AT-467",
    )
