"""Jobs that run again: what changes in their descriptions, and copies of the files that they began with.

The files are those recorded before the command of the job started. Each must still be in the bucket as it was: a file
that the job has changed is not copied in its place.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio import CapacityLimiter, to_thread
from obstore.exceptions import BaseError

from airflow_training.api.description import JobDescription, Variable
from airflow_training.api.naming import job_folder
from airflow_training.api.rerun import JobChanges, with_argument
from airflow_training.api.resources import Resources
from airflow_training.service.errors import ApiError
from airflow_training.service.runners.run_folder import Spec, UnreadableRecord, read_inputs
from airflow_training.service.runners.supervisor.secret_masks import Masks
from airflow_training.service.scheduling.capacity import MEGABYTE
from airflow_training.service.scheduling.job import JobKey
from airflow_training.service.scheduling.job_table import JobTable, StoredJob
from airflow_training.service.scheduling.scheduler import Scheduler
from airflow_training.service.secrets_in_descriptions import masks_of, sensitive_masks
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.bucket import Buckets
from airflow_training.service.storage.job_files import JobFiles, LocalFiles, open_location, size_of

# Seconds that a store may take for one request: the copy of a file of gigabytes is one.
_TIMEOUT = 180
# Reruns of one tenant that copy files or wait for it: each holds a description.
_MOST = 100
# The number of files named in an error.
_MAX_NAMED = 5


def changed(job_id: str, stored: StoredJob, changes: JobChanges) -> dict[str, Any]:
    """The description of a job with its secrets and with the changes: a document, which is yet to be validated."""
    before = stored.description
    document: dict[str, Any] = before.to_wire()["job"]
    execution = document["execution"]
    given = changes.model_dump(by_alias=True, exclude_unset=True, exclude_none=True, mode="json")
    document["name"] = given.get("name", before.name)
    execution |= {name: given[name] for name in ("image", "command", "completionTime") if name in given}
    if resources := given.get("resources"):
        plan = execution.pop("resourcePlanId", None)
        if plan and "resources" not in execution:
            requested = stored.requested
            execution["resources"] = {"cpus": requested.cpus, "gpus": requested.gpus, "memory": requested.memory}
        execution["resources"] = execution.get("resources", {}) | resources
    variables = {variable.name: variable for variable in (*before.env, *changes.env)}
    document["env"] = [variable.model_dump(mode="json") for variable in variables.values()]
    if not changes.command:
        for variable in changes.env:
            execution["command"] = with_argument(execution["command"], variable.name.lower(), variable.text)
    masks = [*(before.masks or ()), *_new_masks(before, changes.env), *sensitive_masks(variables.values())]
    document["masks"] = list(dict.fromkeys(masks)) or None
    document["rerunOf"] = job_id
    return document


def _new_masks(before: JobDescription, changes: tuple[Variable, ...]) -> list[str]:
    """The masks for new values of variables that were masked before, whatever their names."""
    masks = Masks(before.masks or ())
    secret = {variable.argument for variable in before.env if masks.mask(variable.text) != variable.text}
    return [mask for variable in changes if variable.argument in secret for mask in masks_of(variable)]


@dataclass(frozen=True)
class Rerun:
    """A job that is to run as another one did.

    Attributes:
        key: The new job.
        description: Its description.
        requested: The resources that it requests.
        job_id: The job that ran before.
        stored: The same, as it was submitted.
    """

    key: JobKey
    description: JobDescription
    requested: Resources
    job_id: str
    stored: StoredJob


class Reruns:
    """Copies the files of one job of each tenant at a time, and submits the new jobs.

    What is under way is lost in a restart; the client then repeats its request.

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
        self._tasks: dict[JobKey, asyncio.Task[None]] = {}
        # Apart from the threads of requests, so that a long copy delays only reruns of the same tenant.
        self._limiters: defaultdict[str, CapacityLimiter] = defaultdict(partial(CapacityLimiter, 1))

    async def run(self, rerun: Rerun, wait: float) -> bool:
        """Copy the files of a job and submit it, unless that is under way; it continues if the wait ends first.

        Returns:
            Whether a job with the id was submitted.

        Raises:
            ApiError: The files cannot be copied, or too many reruns of the tenant wait.
        """
        if not (task := self._tasks.get(rerun.key)):
            if sum(key.tenant == rerun.key.tenant for key in self._tasks) >= _MOST:
                raise ApiError(
                    429,
                    f"{_MOST} reruns are waiting for copies of their files already: try again when some are done.",
                    code="AT-672",
                )
            task = self._tasks[rerun.key] = asyncio.create_task(self._run(rerun))
            task.add_done_callback(partial(self._end, rerun.key))
        ended, _ = await asyncio.wait([task], timeout=wait)
        if ended:
            task.result()
        return bool(ended)

    def _end(self, key: JobKey, task: asyncio.Task[None]) -> None:
        del self._tasks[key]
        if not task.cancelled():
            # All its clients may be gone; the next one gets the same error.
            task.exception()

    async def _run(self, rerun: Rerun) -> None:
        await to_thread.run_sync(self._copy_and_submit, rerun, limiter=self._limiters[rerun.key.tenant])
        self._scheduler.wake()

    def _copy_and_submit(self, rerun: Rerun) -> None:
        # If the job exists, its files are there, and may be in use.
        if self._jobs.exists(rerun.key):
            return
        # Before gigabytes are copied in vain.
        self._jobs.check_queue(rerun.key)
        source = self._source(rerun)
        target = self._buckets.location(rerun.key.tenant, job_folder(rerun.description.name, rerun.key.job_id))
        if source == target or source.keys() != target.keys() or source.get("store") != target.get("store"):
            raise ApiError(
                409,
                f"The files of the job {rerun.job_id} cannot be copied: the new job would have the same folder, or one"
                " in another store. Choose another id, or submit the job again with its files.",
                code="AT-674",
            )
        try:
            self._copy(rerun, open_location(source, _TIMEOUT), target.get("folder") or target["prefix"])
        except (BaseError, OSError) as error:
            # Without the path, which is the service's own.
            reason = (isinstance(error, OSError) and error.strerror) or str(error).split("\n")[0]
            raise ApiError(
                503,
                f"The files of the job {rerun.job_id} cannot be copied now: try again. {reason}",
                code="AT-676",
            ) from error
        self._jobs.submit(rerun.key, rerun.description, rerun.requested)

    def _source(self, rerun: Rerun) -> dict[str, str]:
        """Where the files of the job before are; a job that never began has no record of it."""
        try:
            return Spec.read(self._data.job_state(rerun.key.tenant, rerun.job_id)).files
        except UnreadableRecord:
            return self._buckets.location(rerun.key.tenant, job_folder(rerun.stored.description.name, rerun.job_id))

    def _copy(self, rerun: Rerun, files: JobFiles, target: str) -> None:
        there = files.versions()
        inputs = read_inputs(self._data.job_state(rerun.key.tenant, rerun.job_id))
        if inputs is None:
            if rerun.stored.began:
                raise ApiError(
                    409,
                    f"The service has no record of the files that the job {rerun.job_id} began with: submit it again"
                    " with its files.",
                    code="AT-677",
                )
            # Nothing of it ran, so all files are its client's.
            inputs = there
        _check_unchanged(rerun.job_id, inputs, there)
        if isinstance(files, LocalFiles):
            self._check_disk(rerun.job_id, inputs)
        for name in inputs:
            files.copy_to(target, name)
        # The end of a job replaces its files.
        _check_unchanged(rerun.job_id, inputs, files.versions())

    def _check_disk(self, job_id: str, inputs: Mapping[str, str]) -> None:
        needed = sum(map(size_of, inputs.values())) // MEGABYTE
        free = shutil.disk_usage(self._data.root).free // MEGABYTE
        # Smaller files are no more than what an upload adds.
        if needed and free - needed < self._free_disk:
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
