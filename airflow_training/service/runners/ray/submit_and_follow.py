"""The helper process that runs a job on Ray: `python -m … start|follow|end <run folder>`."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import resource
import secrets
import signal
import sys
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from obstore.exceptions import BaseError

from airflow_training.exceptions import coded
from airflow_training.service.atomic_files import PACKAGE_PARENT
from airflow_training.service.errors import RayRefused, RayUnavailable
from airflow_training.service.runners.ray import node
from airflow_training.service.runners.ray.api import RayApi, RayJob
from airflow_training.service.runners.ray.frames import FrameWriter, read_frame
from airflow_training.service.runners.run_folder import (
    RaySpec,
    Spec,
    Submission,
    SupervisorRecord,
    UnreadableRecord,
    is_canceled,
    note_failure,
    note_waiting,
    read_inputs,
    record_inputs,
)
from airflow_training.service.runners.supervisor.job_log import read_checkpoint
from airflow_training.service.storage.job_files import open_location
from airflow_training.service.storage.keys import issue_temporary_key, revoke_temporary_key
from airflow_training.service.storage.s3 import S3Settings

_T = TypeVar("_T")

# Seconds that a store may take to list the files of the job.
_STORE_TIMEOUT = 15
# Seconds between requests to Ray.
_RETRY_INTERVAL = 1.0
# Requirements of the program on the node; Ray caches them for the next job.
_PACKAGES = ("msgspec", "obstore", "psutil", "uv")
# Additional requirements if the job has GPUs.
_GPU_PACKAGES = ("nvidia-ml-py",)
# Ray fails a job that waits for capacity for 15 minutes.
_START_TIMEOUT = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
_SETUP_FAILED = "RUNTIME_ENV_SETUP_FAILURE"
_TRACEBACK = re.compile(r"^.*Traceback \(most recent call last\):\n(?:[ \t].*\n)*", re.MULTILINE)
# Seconds between Ray's SIGTERM and SIGKILL: the node has its own grace period, and then copies files back.
_STOP_WAIT = 7 * 24 * 3600


class _Failed(Exception):
    """The job has failed; the text becomes its message."""


class _Job:
    """The steps for one job on Ray."""

    def __init__(self, state: Path, spec: Spec, ray_spec: RaySpec, ray: RayApi) -> None:
        self._state = state
        self._ray = ray
        self._spec = spec
        self._ray_spec = ray_spec
        self._keys_file = Path(ray_spec.keys_file)
        self._stopping = asyncio.Event()

    async def start(self) -> int:
        """Submit the job, unless it is submitted, and return when its command starts."""
        self._handle_sigterm()
        if not (submission := await self._find_submission()):
            await asyncio.to_thread(self._record_inputs)
            submission = await self._submit()
        while (await self._wait_until_scheduled(submission)).error_type == _START_TIMEOUT:
            revoke_temporary_key(self._keys_file, submission.access_key)
            submission = await self._submit()
        async for frame in self._new_frames(submission):
            _forward(frame)
            if "running" in frame:
                note_waiting(self._state, "")
                return 0
            if status := self._exit_status(frame, submission):
                return status
        return 1

    async def follow(self) -> int:
        """Forward the output of the command, and return its exit status."""
        self._handle_sigterm()
        submission = Submission.of_current_attempt(self._state)
        if not submission:
            raise _Failed(
                coded("the record of the job's submission to Ray is missing from its run folder", code="AT-481")
            )
        async for frame in self._new_frames(submission):
            _forward(frame)
            if "ended" in frame or "failed" in frame:
                return self._exit_status(frame, submission)
        return 1

    async def end(self) -> int:
        """End the job if it still runs, and wait until its files are copied back."""
        submission = Submission.find(self._state)
        if not submission:
            return 0
        stopped = False
        while (job := await self._retry(lambda: self._ray.job(submission.submission_id))) and not job.ended:
            if not submission.over and not stopped:
                await self._retry(lambda: self._ray.stop(submission.submission_id))
                stopped = True
            # A pending job ends as soon as it starts, and can do nothing without its credentials.
            if job.status == "PENDING":
                break
            await asyncio.sleep(_RETRY_INTERVAL)
        for line in (job.message if job else "").splitlines():
            if (frame := read_frame(line)) and "not_copied" in frame:
                # The supervisor writes it to the log.
                sys.stdout.write(frame["not_copied"] + "\n")
        revoke_temporary_key(self._keys_file, submission.access_key)
        Submission.remove(self._state)
        return 0

    def _record_inputs(self) -> None:
        """Record what the first attempt begins with: the node removes its own record."""
        if SupervisorRecord.read(self._state).attempt == 1 and read_inputs(self._state) is None:
            # Without it the job can run, but no other job can begin with the same files.
            with contextlib.suppress(BaseError, OSError):
                record_inputs(self._state, open_location(self._spec.files, _STORE_TIMEOUT).versions())

    def _handle_sigterm(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    async def _find_submission(self) -> Submission | None:
        """The submission by a previous helper in this attempt; None if Ray does not have it."""
        submission = Submission.of_current_attempt(self._state)
        if not submission or submission.accepted:
            return submission
        submission_id = submission.submission_id
        if await self._retry(lambda: self._ray.job(submission_id)) is None:
            # If the request still arrives, the job can do nothing without its credentials.
            revoke_temporary_key(self._keys_file, submission.access_key)
            return None
        submission = replace(submission, accepted=True)
        submission.write(self._state)
        return submission

    async def _submit(self) -> Submission:
        """Submit the job to Ray."""
        spec, ray_spec = self._spec, self._ray_spec
        access_key, secret_key = issue_temporary_key(self._keys_file, ray_spec.storage_backend)
        attempt = SupervisorRecord.read(self._state).attempt
        submission = Submission(f"{ray_spec.job_id}-{secrets.token_hex(4)}", access_key, attempt)
        submission.write(self._state)
        store = S3Settings(ray_spec.storage_url, ray_spec.bucket, "", "us-east-1", access_key, secret_key)
        package = _package(spec, ray_spec.folder, store)
        try:
            working_dir = await self._retry(lambda: self._ray.upload(package))
            packages = [*_PACKAGES, *(_GPU_PACKAGES if spec.gpus else ())]
            job = {
                "entrypoint": f"exec python -m {node.__name__}",
                "runtime_env": {
                    "working_dir": working_dir,
                    "pip": {"packages": [f"{name}=={version(name)}" for name in packages], "pip_check": False},
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT)},
                },
                "metadata": {"tenant": ray_spec.tenant, "job_id": ray_spec.job_id},
                "entrypoint_num_cpus": spec.limits.cpus,
                "entrypoint_memory": spec.limits.memory * 1024 * 1024,
                "entrypoint_num_gpus": len(spec.gpus),
            }
            await self._retry(lambda: self._ray.submit(submission.submission_id, job))
        except RayRefused as error:
            raise _Failed(coded(f"Ray rejected the job: {error}", code="AT-482")) from error
        submission = replace(submission, accepted=True)
        submission.write(self._state)
        return submission

    async def _wait_until_scheduled(self, submission: Submission) -> RayJob:
        """Wait until the job has started on a node, or failed to, and return its status."""
        while True:
            job = await self._find_job(submission)
            if job.status != "PENDING":
                return job
            note_waiting(self._state, "waiting for a Ray node with enough free resources to set up the job")
            if self._stopping.is_set():
                # The step `end` does the rest.
                raise _Failed("canceled before Ray started it")
            await asyncio.sleep(_RETRY_INTERVAL)

    async def _find_job(self, submission: Submission) -> RayJob:
        job = await self._retry(lambda: self._ray.job(submission.submission_id))
        if job is None:
            raise _Failed(
                coded(
                    "Ray no longer knows the job: its head node was restarted, or the job was deleted",
                    code="AT-483",
                )
            )
        return job

    async def _new_frames(self, submission: Submission) -> AsyncIterator[dict[str, Any]]:
        """The frames of the job's log that its supervisor has not stored, until the job ends.

        Raises:
            _Failed: Ray lost the job.
        """
        expected = (read_checkpoint(self._state) or {"frames": 0})["frames"]
        stopper = asyncio.create_task(self._stop_on_sigterm(submission))
        last_time = False
        try:
            while True:
                with contextlib.suppress(RayUnavailable):
                    async for line in self._ray.log_lines(submission.submission_id):
                        frame = read_frame(line)
                        if frame and frame["frame"] == expected:
                            expected += 1
                            yield frame
                job = await self._find_job(submission)
                if last_time:
                    raise _Failed(_loss_reason(job))
                # The last frames may have arrived in the meantime: read the log once more.
                last_time = job.ended
                await asyncio.sleep(_RETRY_INTERVAL)
        finally:
            stopper.cancel()

    async def _stop_on_sigterm(self, submission: Submission) -> None:
        await self._stopping.wait()
        if not is_canceled(self._state):
            # A shutdown of the machine signals all processes, but the job is to go on: the supervisor leaves it to its
            # successor, and the kernel kills this process in the meantime.
            await asyncio.sleep(_RETRY_INTERVAL)
        await self._retry(lambda: self._ray.stop(submission.submission_id))

    def _exit_status(self, frame: dict[str, Any], submission: Submission) -> int:
        """Record the end of the job if this frame reports it, and return the exit status of the command.

        Raises:
            _Failed: The job did not end by itself.
        """
        if "failed" not in frame and "ended" not in frame:
            return 0
        replace(submission, over=True).write(self._state)
        if "failed" in frame:
            raise _Failed(frame["failed"])
        ended = frame["ended"]
        if ended["exceeded"]:
            raise _Failed(ended["exceeded"])
        if ended["stopped"] and not self._stopping.is_set():
            raise _Failed(coded("the job was stopped in Ray, and not by this service", code="AT-486"))
        return int(ended["status"])

    async def _retry(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """Repeat a request until Ray responds."""
        noted = ""
        while True:
            try:
                response = await request()
            except RayUnavailable as error:  # noqa: PERF203 - it sleeps anyway
                if noted != str(error):
                    noted = str(error)
                    note_waiting(self._state, f"waiting for Ray, which is unreachable: {noted}")
                await asyncio.sleep(_RETRY_INTERVAL)
            else:
                if noted:
                    note_waiting(self._state, "")
                return response


def _package(spec: Spec, prefix: str, store: S3Settings) -> bytes:
    """The working directory on the node, as a ZIP archive: this package, the job, and the settings of its store."""
    # Without the secrets of the service, which no node needs.
    for_node = replace(spec, ray=None, notes=[], files={"store": node.STORE, "prefix": prefix})
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
        for file in sorted((PACKAGE_PARENT / "airflow_training").rglob("*.py")):
            package.write(file, file.relative_to(PACKAGE_PARENT))
        package.writestr(node.JOB, for_node.to_json())
        package.writestr(node.STORE, json.dumps(asdict(store)))
    return archive.getvalue()


def _loss_reason(job: RayJob) -> str:
    if job.status == "STOPPED":
        return coded("the job was stopped in Ray", code="AT-485")
    if job.error_type == _SETUP_FAILED:
        return _setup_failure(job.message)
    # The message may end with the last lines of the log, which are frames.
    lines = [line.strip() for line in job.message.splitlines() if not read_frame(line)]
    FrameWriter(sys.stdout.write, len(job.message) * 2).emit("\n".join(lines))
    # Ray's message starts with a symptom, and has the reason below: `The actor died because its node has died.`
    reason = next((line for line in lines if " because " in line), lines[0] if lines else f"it is {job.status} there")
    return coded(f"Ray lost the job: {reason.partition(', last available logs')[0][:300]}", code="AT-484")


def _setup_failure(message: str) -> str:
    """Why Ray could not install the requirements on the node; the output of pip goes to the log."""
    if "No module named pip" in message:
        return coded(
            "Ray cannot set up the job, because Ray's own Python environment on the node has no pip: install pip"
            " there, on each node",
            code="AT-487",
        )
    # Ray's traceback has no reason, nor have the two lines before it.
    lines = [line.strip() for line in _TRACEBACK.sub("", message).splitlines() if line.strip()]
    FrameWriter(sys.stdout.write, len(message) * 2).emit("\n".join(lines))
    # pip may print other lines after its errors.
    errors = [line for line in lines if line.startswith("ERROR: ")]
    reason = (errors or lines or ["no reason is given"])[-1].removeprefix("ERROR: ")
    return coded(f"Ray could not set up the job on its node: {reason[:300]}", code="AT-488")


def _forward(frame: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(frame) + "\n")
    sys.stdout.flush()


async def _main(step: str, state: Path) -> int:
    try:
        spec = Spec.read(state)
    except UnreadableRecord as unreadable:
        if step == "end":
            # The job can only be stopped by Ray's own tools.
            sys.stdout.write(f"{unreadable}\n")
            return 0
        note_failure(state, str(unreadable))
        return 1
    assert spec.ray, "the runner is Ray"  # noqa: S101
    async with RayApi(spec.ray.address, spec.ray.headers) as ray:
        job = _Job(state, spec, spec.ray, ray)
        steps = {"start": job.start, "follow": job.follow, "end": job.end}
        try:
            return await steps[step]()
        except _Failed as failed:
            note_failure(state, str(failed))
            return 1


def main() -> None:
    """Run one step, and exit as the command did."""
    status = asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
    if status < 0:
        # The command was killed by a signal. A core dump of this process would be of no use.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
