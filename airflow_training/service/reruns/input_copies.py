"""Copies of the files that a job began with, for a job that runs again: in the bucket, without the client.

The files are those recorded before the command of the job started. Each must still be in the bucket as it was: a file
that the job has changed is not copied in its place.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice

from obstore.exceptions import BaseError
from starlette.concurrency import run_in_threadpool

from airflow_training.api.description import JobDescription
from airflow_training.api.naming import job_folder
from airflow_training.api.resources import Resources
from airflow_training.service.errors import ApiError
from airflow_training.service.runners.run_folder import Spec, UnreadableRecord, read_inputs
from airflow_training.service.scheduling.capacity import MEGABYTE
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.scheduling.job_table import JobTable
from airflow_training.service.scheduling.scheduler import Scheduler
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.bucket import Buckets
from airflow_training.service.storage.job_files import MAX_FILES, JobFiles, LocalFiles, open_location, size_of

# Copies at a time, files of one at a time, and copies that one tenant may have under way.
_AT_ONCE = 2
_FILES = 4
_MOST_PER_TENANT = 100
# Files handed to the threads at a time.
_BATCH = 64
# Seconds that a store may take for one request: the copy of a file of gigabytes is one.
_TIMEOUT = 180
# The number of files named in an error.
_MAX_NAMED = 5


@dataclass(frozen=True)
class Rerun:
    """A job that is to run as another one did.

    Attributes:
        key: The new job.
        description: Its description.
        requested: The resources that it requests.
        before: The job that ran before.
        name: The name of that.
        began: Whether that has started its command.
    """

    key: JobKey
    description: JobDescription
    requested: Resources
    before: JobKey
    name: str
    began: bool


@dataclass
class _Copy:
    rerun: Rerun
    task: asyncio.Task[None] | None = None
    total: int = 0
    done: int = 0


class InputCopies:
    """Copies files of jobs, two jobs at a time and one of each tenant, and submits the new jobs.

    What it is doing is lost in a restart; the client then repeats its request.

    Args:
        data: The data folder.
        buckets: The buckets.
        jobs: The job table.
        scheduler: Starts the new jobs.
        free_disk: MB that must be free on the disk of the data folder afterwards.
    """

    def __init__(
        self, data: DataFolder, buckets: Buckets, jobs: JobTable, scheduler: Scheduler, *, free_disk: int
    ) -> None:
        self._data = data
        self._buckets = buckets
        self._jobs = jobs
        self._scheduler = scheduler
        self._free_disk = free_disk
        self._copies: dict[JobKey, _Copy] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tenant_locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="input-copies")

    async def run(self, rerun: Rerun, wait: float) -> str:
        """Copy the files of a job and submit it, unless that is under way; it continues if the wait ends first.

        Returns:
            What it is doing; empty once the job is submitted.

        Raises:
            ApiError: The files cannot be copied, or the id is taken by another rerun.
        """
        copy = self._copies.get(rerun.key)
        if not copy:
            if sum(key.tenant == rerun.key.tenant for key in self._copies) >= _MOST_PER_TENANT:
                raise ApiError(
                    429,
                    f"The files of {_MOST_PER_TENANT} jobs are being copied already: try again when some are done.",
                    code="AT-672",
                )
            copy = self._copies[rerun.key] = _Copy(rerun)
            copy.task = asyncio.create_task(self._run(copy))
            copy.task.add_done_callback(partial(self._end, rerun.key))
        elif copy.rerun.description != rerun.description:
            raise ApiError(
                409,
                f"The id {rerun.key.job_id} is taken by another rerun: choose a new id.",
                code="AT-673",
            )
        assert copy.task  # noqa: S101
        ended, _ = await asyncio.wait([copy.task], timeout=wait)
        if not ended:
            before = rerun.before.job_id
            if not copy.total:
                return f"waiting to copy the files of the job {before}"
            return f"copying the files of the job {before}: {copy.done} of {copy.total}"
        copy.task.result()
        return ""

    def _end(self, key: JobKey, task: asyncio.Task[None]) -> None:
        del self._copies[key]
        if not task.cancelled():
            # All its clients may be gone; the next one gets the same error.
            task.exception()

    async def _run(self, copy: _Copy) -> None:
        rerun = copy.rerun
        async with self._tenant_locks[rerun.key.tenant], self._slots:
            # If the job exists, its files are there, and may be in use.
            if not await run_in_threadpool(self._jobs.exists, rerun.key):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._copy, copy)
            await run_in_threadpool(self._jobs.submit, rerun.key, rerun.description, rerun.requested)
        self._scheduler.wake()

    def _copy(self, copy: _Copy) -> None:
        rerun = copy.rerun
        source = self._location_of(rerun)
        target = self._buckets.location(rerun.key.tenant, job_folder(rerun.description.name, rerun.key.job_id))
        if source.keys() != target.keys() or source.get("store") != target.get("store"):
            raise ApiError(
                409,
                f"The files of the job {rerun.before.job_id} are in another store than those of new jobs: submit it"
                " again with its files.",
                code="AT-674",
            )
        if source == target:
            raise ApiError(
                409, f"The new job would have the folder of {rerun.before.job_id}: choose another id.", code="AT-675"
            )
        try:
            self._copy_files(copy, open_location(source, _TIMEOUT), target.get("folder") or target["prefix"])
        except (BaseError, OSError) as error:
            raise ApiError(
                503,
                f"The files of the job {rerun.before.job_id} cannot be copied now: try again."
                f" {str(error).splitlines()[0]}",
                code="AT-676",
            ) from error

    def _location_of(self, rerun: Rerun) -> dict[str, str]:
        """Where the files of the job before are; a job that never began has no record of it."""
        try:
            return Spec.read(self._data.job_state(*rerun.before)).files
        except UnreadableRecord:
            return self._buckets.location(rerun.before.tenant, job_folder(rerun.name, rerun.before.job_id))

    def _copy_files(self, copy: _Copy, files: JobFiles, target: str) -> None:
        rerun = copy.rerun
        there = files.versions()
        inputs = read_inputs(self._data.job_state(*rerun.before))
        if inputs is None:
            if rerun.began:
                raise ApiError(
                    409,
                    f"The service has no record of the files that the job {rerun.before.job_id} began with: submit it"
                    " again with its files.",
                    code="AT-677",
                )
            # Nothing of it ran, so all files are its client's.
            inputs = there
        _check_unchanged(rerun.before.job_id, inputs, there)
        self._check_size(rerun.before.job_id, inputs, on_disk=isinstance(files, LocalFiles))
        copy.total = len(inputs)
        names = iter(inputs)
        with ThreadPoolExecutor(_FILES, thread_name_prefix="input-copy") as threads:
            while batch := list(islice(names, _BATCH)):
                for _ in threads.map(partial(files.copy_to, target), batch):
                    copy.done += 1
        # The end of a job replaces its files.
        _check_unchanged(rerun.before.job_id, inputs, files.versions())

    def _check_size(self, job_id: str, inputs: Mapping[str, str], *, on_disk: bool) -> None:
        if len(inputs) > MAX_FILES:
            raise ApiError(
                409,
                f"The job {job_id} began with {len(inputs)} files, more than the {MAX_FILES} that are copied: submit it"
                " again with its files.",
                code="AT-678",
            )
        needed = sum(map(size_of, inputs.values())) // MEGABYTE
        free = shutil.disk_usage(self._data.root).free // MEGABYTE
        # Smaller files are no more than what an upload adds.
        if on_disk and needed and free - needed < self._free_disk:
            raise ApiError(
                507,
                f"The files of the job {job_id} have {needed} MB; {free} MB are free on the disk of the service, and"
                f" {self._free_disk} MB are kept free. Ask its administrator.",
                code="AT-679",
            )


def _check_unchanged(job_id: str, inputs: Mapping[str, str], there: Mapping[str, str]) -> None:
    """Raise ApiError if files that a job began with are not as they were."""
    if not (differing := [name for name, version in inputs.items() if there.get(name) != version]):
        return
    named = [f"{name[:200]!r} {'was changed' if name in there else 'is gone'}" for name in differing[:_MAX_NAMED]]
    more = f" and {len(differing) - _MAX_NAMED} more" if len(differing) > _MAX_NAMED else ""
    raise ApiError(
        409,
        f"The job {job_id} cannot run again with the files that it began with: {', '.join(named)}{more}. Submit it"
        " again with its files.",
        code="AT-680",
    )
