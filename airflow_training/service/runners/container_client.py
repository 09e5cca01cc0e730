"""What is done with the container of a job, as programs: `python -m … prepare|run|remove <state folder of the job>`.

Source: the Docker Engine API, which Podman speaks as well. `DOCKER_HOST` and its like say where the engine is.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig, Mount
from docker.utils import parse_repository_tag
from requests import RequestException
from urllib3.exceptions import HTTPError

from airflow_training.service.files import read_json, write_atomic
from airflow_training.service.runners.limits import KILLED_FIRST, PROCESSES
from airflow_training.service.runners.process_tree import end_with_parent
from airflow_training.service.runners.state_folder import PREPARING, SPECIFICATION, name_of

WORK = "data"
_HOME, _TEMPORARY = "home", "tmp"
_FAILURE = "failure.txt"
_MADE = "container.made"

# Where a job finds its things; the folder of the job is below /data.
_HOME_IN_CONTAINER = "/airflow-training"

# The first process passes the request to end on to all others, which the kernel does not do, and writes down whether
# the kernel had to end one for want of memory. Source: cgroup v2's memory.events, cgroup v1's memory.oom_control.
_FIRST_PROCESS = """
trap 'kill -TERM -1' TERM
/bin/sh -c "$1" &
while kill -0 $! 2> /dev/null; do wait $!; status=$?; done
cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control > "$2" 2> /dev/null
exit $status
"""
_MEMORY = ".memory"
_OUT_OF_MEMORY = re.compile(r"^oom_kill [1-9]", re.MULTILINE)

# Seconds after which an engine that is away is asked again.
_PAUSE = 1.0
# Engines refuse for a moment to remove what they are busy with.
_TRIES = 30
_AWAY = (RequestException, HTTPError, OSError)


def folder_of(state: Path) -> Path:
    """All that the container of a job can write to of this machine's disk."""
    return state / "container"


def make_folder(state: Path, owner: int) -> None:
    """Make the folders that the container of a job writes to."""
    for name in (WORK, _HOME, _TEMPORARY):
        folder = folder_of(state) / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(folder, owner, owner)


def failure(state: Path) -> str:
    """Why the job could not run, or was ended; an empty text where all is well."""
    with contextlib.suppress(FileNotFoundError):
        return (state / _FAILURE).read_text()
    return ""


def forget_failure(state: Path) -> None:
    """Begin a new attempt."""
    (state / _FAILURE).unlink(missing_ok=True)


class _Failed(Exception):
    """There is nothing more to be done; the text becomes the message of the job."""


class _Job:
    """The container of one job."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._specification: dict[str, Any] = read_json(state / SPECIFICATION) or {}
        self._name = name_of(state)
        self._image: str = self._specification["image"]
        self._stopping = threading.Event()

    def prepare(self) -> int:
        """Pull the image, unless the engine has it."""
        engine = self._engine()
        try:
            engine.images.get(self._image)
        except ImageNotFound:
            self._pull(engine)
        return 0

    def run(self) -> int:
        """Run the command in a new container, hand its output on, and return its exit status."""
        signal.signal(signal.SIGTERM, lambda *_: self._stopping.set())
        engine = self._engine()
        self._remove(engine)
        (self._state / _MADE).touch()
        container = self._create(engine)
        try:
            output = _attach(container)
            container.start()
            threading.Thread(target=self._stop_when_told, args=[container], daemon=True).start()
            status = self._follow(engine, container, output)
            self._tell_want_of_memory(container, status)
        except APIError as error:
            raise _Failed(f"the container could not be started: {_reason(error)}") from error
        finally:
            self._remove(engine)
        return status

    def remove(self) -> int:
        """Remove the container by force, where one was ever made."""
        if (self._state / _MADE).exists():
            self._remove(self._engine())
        return 0

    def _engine(self) -> docker.DockerClient:
        """The engine, as soon as it answers."""
        waited_for = ""
        while isinstance(engine := _connect(), str):
            if waited_for != engine:
                self._wait_for(f"waiting for the container engine, which does not answer: {engine}")
            waited_for = engine
            time.sleep(_PAUSE)
        if waited_for:
            self._wait_for("")
        return engine

    def _wait_for(self, what: str) -> None:
        """Have the status of the job say what keeps it from running."""
        write_atomic(self._state / PREPARING, what.encode())

    def _pull(self, engine: docker.DockerClient) -> None:
        repository, tag = parse_repository_tag(self._image)
        self._wait_for(f"pulling the image {self._image}")
        _say(f"Pulling the image {self._image}")
        try:
            for event in engine.api.pull(repository, tag or "latest", stream=True, decode=True):
                if "error" in event:
                    raise _Failed(f"the image {self._image} cannot be pulled: {event['error']}")
                if line := _progress(event):
                    _say(line)
            # An engine may say nothing of what went wrong.
            engine.images.get(self._image)
        except APIError as error:
            raise _Failed(f"the image {self._image} cannot be pulled: {_reason(error)}") from error
        self._wait_for("")

    def _create(self, engine: docker.DockerClient) -> Container:
        limits = self._specification["limits"]
        memory = limits["memory"] * 1024 * 1024
        folder, owner = folder_of(self._state), (folder_of(self._state) / WORK).stat()
        inside = {WORK: self._specification["mount"], _HOME: _HOME_IN_CONTAINER, _TEMPORARY: "/tmp"}  # noqa: S108
        gpus = self._specification["gpus"]
        try:
            image = engine.images.get(self._image)
            return engine.containers.create(
                image,
                entrypoint="/bin/sh",
                command=[
                    *("-c", _FIRST_PROCESS, "sh"),
                    *(self._specification["command"], f"{_HOME_IN_CONTAINER}/{_MEMORY}"),
                ],
                name=self._name,
                labels=self._specification["labels"],
                environment={**_environment(image.attrs), **self._specification["env"]},
                working_dir=self._specification["mount"],
                mounts=[Mount(target, str(folder / name), type="bind") for name, target in inside.items()],
                user=f"{owner.st_uid}:{owner.st_gid}",
                nano_cpus=limits["cpus"] * 10**9,
                mem_limit=memory,
                memswap_limit=memory,
                # Data loaders hand their batches on in shared memory; it counts as memory of the job.
                shm_size=memory // 2,
                pids_limit=PROCESSES,
                device_requests=[DeviceRequest(device_ids=gpus, capabilities=[["gpu"]])] if gpus else None,
                oom_score_adj=KILLED_FIRST,
                security_opt=["no-new-privileges"],
                cap_drop=["ALL"],
                # The output is taken as it is written; the engine has none to keep.
                log_config=LogConfig(type="none"),
            )
        except APIError as error:
            raise _Failed(f"the container could not be made: {_reason(error)}") from error

    def _follow(self, engine: docker.DockerClient, container: Container, output: Iterator[bytes]) -> int:
        """Hand the output on to the end of the container, and return its exit status."""
        while True:
            with contextlib.suppress(*_AWAY):
                for piece in output:
                    sys.stdout.buffer.write(piece)
                    sys.stdout.buffer.flush()
            output = iter(())
            try:
                container.reload()
                if container.status in {"running", "paused", "stopping"}:
                    # The stream can end a moment before the container does.
                    return int(container.wait(timeout=_PAUSE)["StatusCode"])
                return int(container.attrs["State"]["ExitCode"])
            except NotFound:
                raise _Failed("the container was removed while the job ran") from None
            except _AWAY:
                time.sleep(_PAUSE)
                engine = self._engine()
                with contextlib.suppress(APIError, *_AWAY):
                    container = engine.containers.get(self._name)
                    output = _attach(container)
                _say("The container engine was away: lines that the job wrote meanwhile may be missing.")

    def _stop_when_told(self, container: Container) -> None:
        self._stopping.wait()
        with contextlib.suppress(APIError, *_AWAY):
            container.kill("SIGTERM")

    def _tell_want_of_memory(self, container: Container, status: int) -> None:
        note = folder_of(self._state) / _HOME / _MEMORY
        found = note.read_text(errors="replace") if note.is_file() and not note.is_symlink() else ""
        with contextlib.suppress(*_AWAY):
            container.reload()
        if status and (container.attrs["State"].get("OOMKilled") or _OUT_OF_MEMORY.search(found)):
            memory = self._specification["limits"]["memory"]
            raise _Failed(f"out of memory: used {memory} of {memory} MB")

    def _remove(self, engine: docker.DockerClient) -> None:
        """Remove the container by force; one that has ended and cannot be removed is left where it is."""
        tries = 0
        while not self._removed(engine, forgo=tries > _TRIES):
            time.sleep(_PAUSE)
            engine = self._engine()
            tries += 1

    def _removed(self, engine: docker.DockerClient, *, forgo: bool) -> bool:
        try:
            container = engine.containers.get(self._name)
            if forgo and container.status != "running":
                return True
            container.remove(force=True, v=True)
        except NotFound:
            return True
        except (APIError, *_AWAY):
            return False
        return True


def _connect() -> docker.DockerClient | str:
    """The engine, or why it cannot be reached."""
    try:
        engine = docker.from_env()
        engine.ping()
    except (DockerException, *_AWAY) as error:
        return _reason(error)
    return engine


def _attach(container: Container) -> Iterator[bytes]:
    output: Iterator[bytes] = container.attach(stdout=True, stderr=True, stream=True, logs=False)
    return output


def _environment(image: Mapping[str, Any]) -> dict[str, str]:
    """What a job finds beside its own variables."""
    of_image = dict(variable.split("=", 1) for variable in image["Config"].get("Env") or ())
    path = of_image.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {
        "HOME": _HOME_IN_CONTAINER,
        # `pip install` writes to the home, since a job may not change its image; Debian's pip has to be told to.
        "PATH": f"{_HOME_IN_CONTAINER}/.local/bin:{path}",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        # Lines appear in the log when they are printed, not when a buffer is full.
        "PYTHONUNBUFFERED": "1",
    }


def _progress(event: Mapping[str, Any]) -> str:
    """A line of an image's pull; empty where it would only say how many bytes have come."""
    if event.get("progressDetail") or not event.get("status"):
        return ""
    return f"{event['id']}: {event['status']}" if event.get("id") else str(event["status"])


def _say(line: str) -> None:
    sys.stdout.buffer.write(f"{line}\n".encode())
    sys.stdout.buffer.flush()


def _reason(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip()


def main() -> int:
    """Do one step."""
    end_with_parent()
    step, state = sys.argv[1], Path(sys.argv[2])
    steps = {"prepare": _Job.prepare, "run": _Job.run, "remove": _Job.remove}
    try:
        return steps[step](_Job(state))
    except _Failed as failed:
        reason = str(failed)
    except (DockerException, *_AWAY) as error:
        reason = f"the container engine failed: {_reason(error)}"
    write_atomic(state / _FAILURE, reason.encode())
    return 1


if __name__ == "__main__":
    sys.exit(main())
