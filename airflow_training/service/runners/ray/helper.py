"""What is done with a job on Ray, as programs: `python -m … start|follow|end <state folder>`."""

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
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from airflow_training.exceptions import coded
from airflow_training.service.durable_files import PACKAGE_PARENT, read_json
from airflow_training.service.errors import RayAway, RayRefused
from airflow_training.service.runners.ray import node
from airflow_training.service.runners.ray.api import RayApi, RayJob
from airflow_training.service.runners.ray.frames import FrameWriter, read_frame
from airflow_training.service.runners.ray.note import RayNote
from airflow_training.service.runners.run_folder import CANCEL, SPECIFICATION, SUPERVISOR
from airflow_training.service.runners.supervisor.helper_notes import note_failure, note_waiting
from airflow_training.service.runners.supervisor.job_log import read_mark
from airflow_training.service.storage.keys import lend, take_back
from airflow_training.service.storage.s3 import S3Settings

_T = TypeVar("_T")

# Seconds after which Ray is asked again.
_PAUSE = 1.0
# What the program on the node needs beside Python; Ray keeps it for the next job.
_PACKAGES = ("obstore", "psutil", "uv")
# What it needs as well where the job has graphics processors.
_GPU_PACKAGES = ("nvidia-ml-py",)
# Ray gives up a job that has waited for room for a quarter of an hour.
_WAITED_TOO_LONG = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"
_NOT_PREPARED = "RUNTIME_ENV_SETUP_FAILURE"
_STACK = re.compile(r"^.*Traceback \(most recent call last\):\n(?:[ \t].*\n)*", re.MULTILINE)
# Ray waits so many seconds between SIGTERM and SIGKILL: the node has its own time for that, and brings files back
# afterwards.
_STOP_WAIT = 7 * 24 * 3600


class _Failed(Exception):
    """There is nothing more to be done; the text becomes the message of the job."""


class _Job:
    """One job on Ray."""

    def __init__(self, state: Path, ray: RayApi) -> None:
        self._state = state
        self._ray = ray
        self._specification: dict[str, Any] = read_json(state / SPECIFICATION) or {}
        self._keys_file = Path(self._specification["storage"]["keys_file"])
        self._stopping = asyncio.Event()

    async def start(self) -> int:
        """Submit the job, unless that was done, and return when its command starts."""
        self._listen()
        note = await self._submitted() or await self._submit()
        while (await self._scheduled(note)).error_type == _WAITED_TOO_LONG:
            take_back(self._keys_file, note.access_key)
            note = await self._submit()
        async for frame in self._frames(note):
            _hand_on(frame)
            if "running" in frame:
                note_waiting(self._state, "")
                return 0
            if status := self._ended(frame, note):
                return status
        return 1

    async def follow(self) -> int:
        """Hand on what the command writes, and return its exit status."""
        self._listen()
        note = RayNote.of_this_attempt(self._state)
        if not note:
            raise _Failed(coded("the note of what the job is on Ray is gone from its state folder", code="AT-481"))
        async for frame in self._frames(note):
            _hand_on(frame)
            if "ended" in frame or "failed" in frame:
                return self._ended(frame, note)
        return 1

    async def end(self) -> int:
        """End what has not ended by itself, and wait until what the job wrote has been brought back."""
        note = RayNote.read(self._state)
        if not note:
            return 0
        asked = False
        while (job := await self._patiently(lambda: self._ray.job(note.submission_id))) and not job.over:
            if not note.over and not asked:
                await self._patiently(lambda: self._ray.stop(note.submission_id))
                asked = True
            # One that waits for room ends as soon as it has it, and without its key it cannot do a thing.
            if job.status == "PENDING":
                break
            await asyncio.sleep(_PAUSE)
        for line in (job.message if job else "").splitlines():
            if (frame := read_frame(line)) and "left" in frame:
                # The supervisor then says it.
                sys.stdout.write(frame["left"] + "\n")
        take_back(self._keys_file, note.access_key)
        RayNote.forget(self._state)
        return 0

    def _listen(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._stopping.set)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})

    async def _submitted(self) -> RayNote | None:
        """What a client before us has submitted, whose supervisor was ended; None where Ray has nothing of it."""
        note = RayNote.of_this_attempt(self._state)
        if not note or note.submitted:
            return note
        submission_id = note.submission_id
        if await self._patiently(lambda: self._ray.job(submission_id)) is None:
            # Should its submit still arrive, it cannot do a thing without its key.
            take_back(self._keys_file, note.access_key)
            return None
        note = note.with_submitted()
        note.write(self._state)
        return note

    async def _submit(self) -> RayNote:
        """Hand the job to Ray."""
        specification = self._specification
        access_key, secret_key = lend(self._keys_file, specification["storage"]["backend"])
        attempt: int = (read_json(self._state / SUPERVISOR) or {})["attempt"]
        note = RayNote(f"{specification['job_id']}-{secrets.token_hex(4)}", access_key, attempt)
        note.write(self._state)
        storage = specification["storage"]
        store = S3Settings(storage["url"], storage["bucket"], "", "us-east-1", access_key, secret_key)
        package = _package(
            {
                **{name: specification[name] for name in ("command", "env", "limits", "gpus")},
                "masks": specification.get("masks") or [],
                "store": store.to_dict(),
                "prefix": storage["folder"],
            }
        )
        limits = specification["limits"]
        try:
            address = await self._patiently(lambda: self._ray.upload(package))
            packages = [*_PACKAGES, *(_GPU_PACKAGES if specification["gpus"] else ())]
            job = {
                "entrypoint": f"exec python -m {node.__name__}",
                "runtime_env": {
                    "working_dir": address,
                    "pip": {"packages": [f"{name}=={version(name)}" for name in packages], "pip_check": False},
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_WAIT)},
                },
                "metadata": {"tenant": specification["tenant"], "job_id": specification["job_id"]},
                "entrypoint_num_cpus": limits["cpus"],
                "entrypoint_memory": limits["memory"] * 1024 * 1024,
                "entrypoint_num_gpus": len(specification["gpus"]),
            }
            await self._patiently(lambda: self._ray.submit(note.submission_id, job))
        except RayRefused as error:
            raise _Failed(coded(f"Ray does not take the job: {error}", code="AT-482")) from error
        note = note.with_submitted()
        note.write(self._state)
        return note

    async def _scheduled(self, note: RayNote) -> RayJob:
        """The job, as soon as it has a place on a node, or has ended without."""
        while True:
            job = await self._look(note)
            if job.status != "PENDING":
                return job
            note_waiting(self._state, "waiting for a node of Ray to have room for the job and to make ready for it")
            if self._stopping.is_set():
                # What is left to do is done by `end`.
                raise _Failed("canceled before Ray had room for it")
            await asyncio.sleep(_PAUSE)

    async def _look(self, note: RayNote) -> RayJob:
        job = await self._patiently(lambda: self._ray.job(note.submission_id))
        if job is None:
            raise _Failed(
                coded(
                    "Ray does not know the job any more: its head was started anew, or somebody deleted the job",
                    code="AT-483",
                )
            )
        return job

    async def _frames(self, note: RayNote) -> AsyncIterator[dict[str, Any]]:
        """The frames of the job's log that its supervisor has not written down, until it ends.

        Raises:
            _Failed: Ray lost the job.
        """
        expected = (read_mark(self._state) or {"frames": 0})["frames"]
        stopper = asyncio.create_task(self._stop_when_told(note))
        last_look = False
        try:
            while True:
                with contextlib.suppress(RayAway):
                    async for line in self._ray.lines(note.submission_id):
                        frame = read_frame(line)
                        if frame and frame["frame"] == expected:
                            expected += 1
                            yield frame
                job = await self._look(note)
                if last_look:
                    raise _Failed(_why_lost(job))
                # Its last frames may have come since.
                last_look = job.over
                await asyncio.sleep(_PAUSE)
        finally:
            stopper.cancel()

    async def _stop_when_told(self, note: RayNote) -> None:
        await self._stopping.wait()
        if not (self._state / CANCEL).exists():
            # Where the machine shuts down, every process is told to end: the supervisor leaves the job to the next one
            # then, and the kernel ends us.
            await asyncio.sleep(_PAUSE)
        await self._patiently(lambda: self._ray.stop(note.submission_id))

    def _ended(self, frame: dict[str, Any], note: RayNote) -> int:
        """Take note of how the job ended, where a frame says it; returns the exit status that says the same."""
        if "failed" in frame:
            note.with_over().write(self._state)
            raise _Failed(frame["failed"])
        if "ended" not in frame:
            return 0
        note.with_over().write(self._state)
        ended = frame["ended"]
        if ended["overstepped"]:
            raise _Failed(ended["overstepped"])
        if ended["stopped"] and not self._stopping.is_set():
            raise _Failed(coded("the job was stopped in Ray, and not by this service", code="AT-486"))
        return int(ended["status"])

    async def _patiently(self, request: Callable[[], Awaitable[_T]]) -> _T:
        """Ask Ray for something until it answers."""
        waited_for = ""
        while isinstance(answer := await _ask(request), RayAway):
            if waited_for != str(answer):
                note_waiting(self._state, f"waiting for Ray, which does not answer: {answer}")
            waited_for = str(answer)
            await asyncio.sleep(_PAUSE)
        if waited_for:
            note_waiting(self._state, "")
        return answer


async def _ask(request: Callable[[], Awaitable[_T]]) -> _T | RayAway:
    try:
        return await request()
    except RayAway as away:
        return away


def _package(job: dict[str, Any]) -> bytes:
    """What Ray unpacks on the node: this package, and the job."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
        for file in sorted((PACKAGE_PARENT / "airflow_training").rglob("*.py")):
            package.write(file, file.relative_to(PACKAGE_PARENT))
        package.writestr(node.JOB, json.dumps(job))
    return archive.getvalue()


def _why_lost(job: RayJob) -> str:
    if job.status == "STOPPED":
        return coded("the job was stopped in Ray", code="AT-485")
    if job.error_type == _NOT_PREPARED:
        return _why_not_prepared(job.message)
    # It may end with the last lines of the log, which are frames.
    lines = [line.strip() for line in job.message.splitlines() if not read_frame(line)]
    FrameWriter(sys.stdout.write, len(job.message) * 2).say("\n".join(lines))
    # Ray begins with what it noticed, and tells the reason further down: `The actor died because its node has died.`
    reason = next((line for line in lines if " because " in line), lines[0] if lines else f"it is {job.status} there")
    return coded(f"Ray lost the job: {reason.partition(', last available logs')[0][:300]}", code="AT-484")


def _why_not_prepared(message: str) -> str:
    """Why Ray could not install what our program on the node needs; what the installer wrote goes to the log."""
    if "No module named pip" in message:
        return coded(
            "Ray cannot prepare the job, since Ray's own Python environment on the node has no pip: install pip there,"
            " on each node",
            code="AT-487",
        )
    # The stack is Ray's, and so are the two lines before it, which give no reason.
    lines = [line.strip() for line in _STACK.sub("", message).splitlines() if line.strip()]
    FrameWriter(sys.stdout.write, len(message) * 2).say("\n".join(lines))
    # pip gives its reason in lines of this kind, and may say more after it.
    errors = [line for line in lines if line.startswith("ERROR: ")]
    reason = (errors or lines or ["no reason is given"])[-1].removeprefix("ERROR: ")
    return coded(f"Ray could not prepare the job on its node: {reason[:300]}", code="AT-488")


def _hand_on(frame: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(frame) + "\n")
    sys.stdout.flush()


async def _main(step: str, state: Path) -> int:
    specification = read_json(state / SPECIFICATION) or {}
    async with RayApi(specification["ray"]["address"], specification["ray"]["headers"]) as ray:
        job = _Job(state, ray)
        steps = {"start": job.start, "follow": job.follow, "end": job.end}
        try:
            return await steps[step]()
        except _Failed as failed:
            with contextlib.suppress(OSError):
                note_failure(state, str(failed))
            return 1


def main() -> None:
    """Do one step, and end as the command did."""
    status = asyncio.run(_main(sys.argv[1], Path(sys.argv[2])))
    if status < 0:
        # It was a signal that ended the command; there is nothing to learn from our own memory.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
