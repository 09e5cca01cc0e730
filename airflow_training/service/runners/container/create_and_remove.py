"""The helper process that runs a job's container: `python -m … wait|prepare|run|remove <run folder>`.

Source: the Docker Engine API, which Podman implements too. `DOCKER_HOST` and related variables locate the engine.
"""

from __future__ import annotations

import contextlib
import functools
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import docker
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import DeviceRequest, LogConfig, Mount
from docker.utils import parse_repository_tag
from requests import RequestException
from urllib3.exceptions import HTTPError

from airflow_training.api.naming import INSTALLED_FILE
from airflow_training.exceptions import coded
from airflow_training.service.atomic_files import read_untrusted
from airflow_training.service.runners.container.folders import (
    HOME,
    TEMPORARY,
    WORK,
    container_folder,
    mark_created,
    may_exist,
    work_folder,
)
from airflow_training.service.runners.container.usage import keep_sampling
from airflow_training.service.runners.run_folder import (
    ContainerSpec,
    Spec,
    UnreadableRecord,
    note_failure,
    note_waiting,
    unique_name,
)
from airflow_training.service.runners.supervisor.time_and_disk_limits import KILLED_FIRST, PROCESSES, out_of_memory

# Seconds between attempts to reach the engine.
_RETRY_INTERVAL = 1.0
# Engines may refuse to remove a container while they are busy with it.
_REMOVE_ATTEMPTS = 30
_ALIVE = frozenset({"running", "paused", "stopping", "restarting"})
# Seconds that a container may take to exit after its output ends.
_EXIT_TIMEOUT = 10.0
# Seconds until the first process handles signals: the kernel drops those without a handler.
_SIGNAL_DELAY = 1.0
# An unreachable engine, or an error response: docker's APIError is a RequestException.
_ENGINE_ERRORS = (RequestException, HTTPError, OSError)

# The folder of the job is mounted below /data.
_HOME_IN_CONTAINER = "/airflow-training"

# The first process forwards SIGTERM to all others, which the kernel does not do, and records whether the kernel killed
# a process for lack of memory. Source: cgroup v2's memory.events, cgroup v1's memory.oom_control. A `wait` that SIGTERM
# interrupts is repeated, since its status is not the command's; 127 then means that the status was returned before.
# Afterwards it lists the packages of the image and of the job, since only the container has both.
_FIRST_PROCESS = r"""
trap 'signaled=1; stopped=1; kill -TERM -1' TERM
/bin/sh -c "$1" &
while
    signaled=
    wait $!
    now=$?
    [ $now -eq 127 ] && [ -n "$status" ] || status=$now
    [ -n "$signaled" ]
do :; done
cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control > "$2" 2> /dev/null
if [ -z "$stopped" ] && [ -f requirements.txt ]; then
    installed=$({ timeout 20 pip3 freeze || timeout 20 pip freeze; } 2> /dev/null |
        sed "s|^[^ ]* @ file://$PWD/\([^#]*\).*|./\1|; s|^-e $PWD/|-e ./|")
    version=$(python3 -V || python -V 2>&1)
    [ -z "$installed" ] || printf '# %s\n%s\n' "$version" "$installed" > "$3"
fi 2> /dev/null
exit $status
"""
_MEMORY_FILE = ".memory"
_OUT_OF_MEMORY = re.compile(rb"^oom_kill [1-9]", re.MULTILINE)


class _Failed(Exception):
    """The job has failed; the text becomes its message."""


class _Job:
    """The steps for the container of one job."""

    def __init__(self, state: Path) -> None:
        self._state = state
        self._name = unique_name(state)
        self._memory_file = container_folder(state) / HOME / _MEMORY_FILE
        self._stopping = threading.Event()

    @functools.cached_property
    def _spec(self) -> Spec:
        return Spec.read(self._state)

    @property
    def _container(self) -> ContainerSpec:
        assert self._spec.container, "the runner is the container runner"  # noqa: S101
        return self._spec.container

    def wait(self) -> int:
        """Wait for the engine."""
        self._engine()
        return 0

    def prepare(self) -> int:
        """Pull the image, unless the engine has it."""
        engine = self._engine()
        try:
            engine.images.get(self._container.image)
        except ImageNotFound:
            self._pull(engine)
        return 0

    def run(self) -> int:
        """Run the command in a new container, forward its output, and return its exit status."""
        signal.signal(signal.SIGTERM, lambda *_: self._stopping.set())
        engine = self._engine()
        self._remove(engine)
        self._memory_file.unlink(missing_ok=True)
        mark_created(self._state)
        container = self._create(engine)
        try:
            output = _attach(container)
            if self._stopping.is_set():
                return 128 + signal.SIGTERM
            container.start()
            threading.Thread(target=self._forward_sigterm, args=[container, time.monotonic()], daemon=True).start()
            sampling = [container, self._state, self._spec.gpus]
            threading.Thread(target=keep_sampling, args=sampling, daemon=True).start()
            status = self._follow(engine, container, output)
            self._check_memory(container)
        except APIError as error:
            raise _Failed(coded(f"the container could not be started: {_reason(error)}", code="AT-473")) from error
        finally:
            self._remove(engine)
        return status

    def remove(self) -> int:
        """Remove the container by force, if one may exist."""
        if may_exist(self._state):
            self._remove(self._engine())
        return 0

    def _engine(self) -> docker.DockerClient:
        """Connect to the engine; waits until it is reachable."""
        noted = ""
        while True:
            try:
                engine = _connect()
            except (DockerException, *_ENGINE_ERRORS) as error:  # noqa: PERF203 - it sleeps anyway
                if noted != (reason := _reason(error)):
                    note_waiting(self._state, f"waiting for the container engine, which is unreachable: {reason}")
                noted = reason
                time.sleep(_RETRY_INTERVAL)
            else:
                if noted:
                    note_waiting(self._state, "")
                return engine

    def _pull(self, engine: docker.DockerClient) -> None:
        repository, tag = parse_repository_tag(self._container.image)
        note_waiting(self._state, f"pulling the image {self._container.image}")
        _log(f"Pulling the image {self._container.image}")
        try:
            for event in engine.api.pull(repository, tag or "latest", stream=True, decode=True):
                if "error" in event:
                    raise self._pull_failed(event["error"])
                if line := _progress(event):
                    _log(line)
            # An engine may not report an error.
            engine.images.get(self._container.image)
        except APIError as error:
            raise self._pull_failed(_reason(error)) from error
        note_waiting(self._state, "")

    def _pull_failed(self, reason: str) -> _Failed:
        return _Failed(coded(f"the image {self._container.image} cannot be pulled: {reason}", code="AT-471"))

    def _create(self, engine: docker.DockerClient) -> Container:
        memory = self._spec.limits.memory * 1024 * 1024
        folder, owner = container_folder(self._state), work_folder(self._state).stat()
        targets = {WORK: self._container.mount, HOME: _HOME_IN_CONTAINER, TEMPORARY: "/tmp"}  # noqa: S108
        gpus = self._spec.gpus
        try:
            image = engine.images.get(self._container.image)
            return engine.containers.create(
                image,
                entrypoint="/bin/sh",
                command=[
                    *("-c", _FIRST_PROCESS, "sh"),
                    *(self._spec.command, f"{_HOME_IN_CONTAINER}/{_MEMORY_FILE}", INSTALLED_FILE),
                ],
                name=self._name,
                labels=self._container.labels,
                environment={
                    **_base_environment(image.attrs),
                    **self._spec.env,
                    # Overrides image and job: NVIDIA's runtime, if it is the default one, selects GPUs by it.
                    "NVIDIA_VISIBLE_DEVICES": ",".join(gpus) or "void",
                },
                # The engine's own proxy may have a password, which the job must not see.
                use_config_proxy=False,
                working_dir=self._container.mount,
                mounts=[Mount(target, str(folder / name), type="bind") for name, target in targets.items()],
                user=f"{owner.st_uid}:{owner.st_gid}",
                nano_cpus=self._spec.limits.cpus * 10**9,
                mem_limit=memory,
                memswap_limit=memory,
                # Data loaders pass their batches in shared memory, which counts as memory of the job.
                shm_size=memory // 2,
                pids_limit=PROCESSES,
                device_requests=[DeviceRequest(device_ids=gpus, capabilities=[["gpu"]])] if gpus else None,
                oom_score_adj=KILLED_FIRST,
                security_opt=["no-new-privileges"],
                cap_drop=["ALL"],
                # The output is streamed; the engine need not store it.
                log_config=LogConfig(type="none"),
            )
        except APIError as error:
            raise _Failed(coded(f"the container could not be created: {_reason(error)}", code="AT-472")) from error

    def _follow(self, engine: docker.DockerClient, container: Container, output: Iterator[bytes]) -> int:
        """Forward the output until the container exits, and return its exit status."""
        while True:
            with contextlib.suppress(*_ENGINE_ERRORS):
                for chunk in output:
                    sys.stdout.buffer.write(chunk)
                    sys.stdout.buffer.flush()
            output = iter(())
            try:
                container.reload()
                if container.status in _ALIVE:
                    # The stream may end a moment before the container exits.
                    return int(container.wait(timeout=_EXIT_TIMEOUT)["StatusCode"])
                return int(container.attrs["State"]["ExitCode"])
            except NotFound:
                raise _Failed(coded("the container was removed while the job ran", code="AT-474")) from None
            except _ENGINE_ERRORS:
                time.sleep(_RETRY_INTERVAL)
                engine = self._engine()
                with contextlib.suppress(*_ENGINE_ERRORS):
                    container = engine.containers.get(self._name)
                    if container.status in _ALIVE:
                        output = _attach(container)
                        _log("The container engine was unreachable: log lines of that time may be missing.")

    def _forward_sigterm(self, container: Container, started: float) -> None:
        self._stopping.wait()
        time.sleep(max(0, started + _SIGNAL_DELAY - time.monotonic()))
        with contextlib.suppress(*_ENGINE_ERRORS):
            container.kill("SIGTERM")

    def _check_memory(self, container: Container) -> None:
        with contextlib.suppress(*_ENGINE_ERRORS):
            container.reload()
        recorded = b""
        # The job may have replaced the file with anything.
        with contextlib.suppress(OSError):
            recorded = read_untrusted(self._memory_file, 4096)
        if container.attrs["State"].get("OOMKilled") or _OUT_OF_MEMORY.search(recorded):
            memory = self._spec.limits.memory
            raise _Failed(out_of_memory(memory, memory))

    def _remove(self, engine: docker.DockerClient) -> None:
        """Remove the container by force; an exited one that cannot be removed is left in place."""
        attempts = 0
        while True:
            try:
                container = engine.containers.get(self._name)
                if attempts <= _REMOVE_ATTEMPTS or container.status in _ALIVE:
                    container.remove(force=True, v=True)
                return
            except NotFound:
                return
            except _ENGINE_ERRORS:
                time.sleep(_RETRY_INTERVAL)
            engine = self._engine()
            attempts += 1


def _connect() -> docker.DockerClient:
    """Connect to the engine, with its API version from a header of `/_ping`.

    By default the client reads it from `/version`, for which Podman runs half a dozen programs.
    """
    with contextlib.closing(docker.from_env(version=MINIMUM_DOCKER_API_VERSION)) as probe:
        reply = probe.api.get(f"{probe.api.base_url}/_ping", timeout=probe.api.timeout)
        reply.raise_for_status()
    return docker.from_env(version=reply.headers.get("Api-Version"))


def _attach(container: Container) -> Iterator[bytes]:
    output: Iterator[bytes] = container.attach(stdout=True, stderr=True, stream=True, logs=False)
    return output


def _progress(event: Mapping[str, Any]) -> str:
    """A log line for an event of an image pull; empty for the progress of a download."""
    if event.get("progressDetail") or not event.get("status"):
        return ""
    return f"{event['id']}: {event['status']}" if event.get("id") else str(event["status"])


def _log(line: str) -> None:
    sys.stdout.buffer.write(f"{line}\n".encode())
    sys.stdout.buffer.flush()


def _base_environment(image: Mapping[str, Any]) -> dict[str, str]:
    """The variables that a job has in addition to its own."""
    image_variables = {name: value for name, _, value in (v.partition("=") for v in image["Config"].get("Env") or ())}
    path = image_variables.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    return {
        "HOME": _HOME_IN_CONTAINER,
        # `pip install` writes to the home, since a job may not change its image; Debian's pip needs permission.
        "PATH": f"{_HOME_IN_CONTAINER}/.local/bin:{path}",
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        # Lines reach the log when they are printed, not when a buffer is full.
        "PYTHONUNBUFFERED": "1",
    }


def _reason(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error).strip()


def main() -> int:
    """Run one step."""
    step, state = sys.argv[1], Path(sys.argv[2])
    steps = {"wait": _Job.wait, "prepare": _Job.prepare, "run": _Job.run, "remove": _Job.remove}
    try:
        return steps[step](_Job(state))
    except (_Failed, UnreadableRecord) as failed:
        reason = str(failed)
    except (DockerException, *_ENGINE_ERRORS) as error:
        reason = coded(f"the container engine failed: {_reason(error)}", code="AT-475")
    note_failure(state, reason)
    return 1


if __name__ == "__main__":
    sys.exit(main())
