"""What is done with the container of a job, as programs: `python -m … wait|prepare|run|remove <state folder>`.

Source: the Docker Engine API, which Podman speaks as well. `DOCKER_HOST` and its like say where the engine is.
"""

from __future__ import annotations

import contextlib
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

from airflow_training.exceptions import coded
from airflow_training.service.durable_files import read_json
from airflow_training.service.runners.container.inside import (
    FIRST_PROCESS,
    HOME_IN_CONTAINER,
    MEMORY,
    environment,
    wanted_memory,
)
from airflow_training.service.runners.container.state import (
    HOME,
    TEMPORARY,
    WORK,
    folder_of,
    note_made,
    was_made,
)
from airflow_training.service.runners.container.usage import keep_sampling
from airflow_training.service.runners.run_folder import SPECIFICATION, name_of
from airflow_training.service.runners.supervisor.helper_notes import note_failure, note_waiting
from airflow_training.service.runners.supervisor.limits import KILLED_FIRST, PROCESSES, out_of_memory

# Seconds after which an engine that is away is asked again.
_PAUSE = 1.0
# Engines refuse for a moment to remove what they are busy with.
_TRIES = 30
_ALIVE = frozenset({"running", "paused", "stopping", "restarting"})
# Seconds that a container may take to end after its output did.
_END = 10.0
# All that an engine answers, or does not. An error that it tells of is one of requests' as well.
_AWAY = (RequestException, HTTPError, OSError)


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

    def wait(self) -> int:
        """Wait for the engine."""
        self._engine()
        return 0

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
        (folder_of(self._state) / HOME / MEMORY).unlink(missing_ok=True)
        note_made(self._state)
        container = self._create(engine)
        try:
            output = _attach(container)
            if self._stopping.is_set():
                return 128 + signal.SIGTERM
            container.start()
            threading.Thread(target=self._stop_when_told, args=[container, time.monotonic()], daemon=True).start()
            sampling = [container, self._state, self._specification["gpus"]]
            threading.Thread(target=keep_sampling, args=sampling, daemon=True).start()
            status = self._follow(engine, container, output)
            self._tell_want_of_memory(container)
        except APIError as error:
            raise _Failed(coded(f"the container could not be started: {_reason(error)}", code="AT-473")) from error
        finally:
            self._remove(engine)
        return status

    def remove(self) -> int:
        """Remove the container by force, where one was ever made."""
        if was_made(self._state):
            self._remove(self._engine())
        return 0

    def _engine(self) -> docker.DockerClient:
        """The engine, as soon as it answers."""
        waited_for = ""
        while isinstance(engine := _connect(), str):
            if waited_for != engine:
                note_waiting(self._state, f"waiting for the container engine, which does not answer: {engine}")
            waited_for = engine
            time.sleep(_PAUSE)
        if waited_for:
            note_waiting(self._state, "")
        return engine

    def _pull(self, engine: docker.DockerClient) -> None:
        repository, tag = parse_repository_tag(self._image)
        note_waiting(self._state, f"pulling the image {self._image}")
        _say(f"Pulling the image {self._image}")
        try:
            for event in engine.api.pull(repository, tag or "latest", stream=True, decode=True):
                if "error" in event:
                    raise self._not_pulled(event["error"])
                if line := _progress(event):
                    _say(line)
            # An engine may say nothing of what went wrong.
            engine.images.get(self._image)
        except APIError as error:
            raise self._not_pulled(_reason(error)) from error
        note_waiting(self._state, "")

    def _not_pulled(self, reason: str) -> _Failed:
        return _Failed(coded(f"the image {self._image} cannot be pulled: {reason}", code="AT-471"))

    def _create(self, engine: docker.DockerClient) -> Container:
        limits = self._specification["limits"]
        memory = limits["memory"] * 1024 * 1024
        folder, owner = folder_of(self._state), (folder_of(self._state) / WORK).stat()
        inside = {WORK: self._specification["mount"], HOME: HOME_IN_CONTAINER, TEMPORARY: "/tmp"}  # noqa: S108
        gpus = self._specification["gpus"]
        try:
            image = engine.images.get(self._image)
            return engine.containers.create(
                image,
                entrypoint="/bin/sh",
                command=[
                    *("-c", FIRST_PROCESS, "sh"),
                    *(self._specification["command"], f"{HOME_IN_CONTAINER}/{MEMORY}"),
                ],
                name=self._name,
                labels=self._specification["labels"],
                environment={
                    **environment(image.attrs),
                    **self._specification["env"],
                    # Whatever image and job say: where NVIDIA's runtime is the default, it goes by this.
                    "NVIDIA_VISIBLE_DEVICES": ",".join(gpus) or "void",
                },
                # The engine's own proxy, which may have a password, is none of the job's business.
                use_config_proxy=False,
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
            raise _Failed(coded(f"the container could not be made: {_reason(error)}", code="AT-472")) from error

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
                if container.status in _ALIVE:
                    # The stream can end a moment before the container does.
                    return int(container.wait(timeout=_END)["StatusCode"])
                return int(container.attrs["State"]["ExitCode"])
            except NotFound:
                raise _Failed(coded("the container was removed while the job ran", code="AT-474")) from None
            except _AWAY:
                time.sleep(_PAUSE)
                engine = self._engine()
                with contextlib.suppress(*_AWAY):
                    container = engine.containers.get(self._name)
                    if container.status in _ALIVE:
                        output = _attach(container)
                        _say("The container engine was away: lines that the job wrote meanwhile may be missing.")

    def _stop_when_told(self, container: Container, started: float) -> None:
        self._stopping.wait()
        # The first process has to be ready for it: the kernel drops what it is not.
        time.sleep(max(0, started + _PAUSE - time.monotonic()))
        with contextlib.suppress(*_AWAY):
            container.kill("SIGTERM")

    def _tell_want_of_memory(self, container: Container) -> None:
        with contextlib.suppress(*_AWAY):
            container.reload()
        if container.attrs["State"].get("OOMKilled") or wanted_memory(self._state):
            memory = self._specification["limits"]["memory"]
            raise _Failed(out_of_memory(memory, memory))

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
            if forgo and container.status not in _ALIVE:
                return True
            container.remove(force=True, v=True)
        except NotFound:
            return True
        except _AWAY:
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
    step, state = sys.argv[1], Path(sys.argv[2])
    steps = {"wait": _Job.wait, "prepare": _Job.prepare, "run": _Job.run, "remove": _Job.remove}
    try:
        return steps[step](_Job(state))
    except _Failed as failed:
        reason = str(failed)
    except (DockerException, *_AWAY) as error:
        reason = coded(f"the container engine failed: {_reason(error)}", code="AT-475")
    with contextlib.suppress(OSError):
        note_failure(state, reason)
    return 1


if __name__ == "__main__":
    sys.exit(main())
