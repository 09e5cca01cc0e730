"""The runner for jobs on a Ray cluster."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from airflow_training.api.description import JobDescription
from airflow_training.api.naming import job_folder
from airflow_training.api.storage import BUCKET
from airflow_training.service.errors import InvalidDescription, StorageUnavailable
from airflow_training.service.runners.run_folder import RaySpec, Spec
from airflow_training.service.runners.service import SupervisedRunner
from airflow_training.service.scheduling.job import Order
from airflow_training.service.settings import DataFolder, RaySettings
from airflow_training.service.storage.bucket import Buckets


class RayRunner(SupervisedRunner):
    """Runs each job on a node of a Ray cluster.

    Args:
        data: The data folder.
        buckets: The buckets of the tenants.
        disk: MB in the folder of a job at most.
        log: Bytes in the log of a job at most.
        ray: The URL and the headers of the cluster.
        storage: The S3 endpoint of the service, as the nodes reach it.
    """

    kind = "ray"

    def __init__(
        self, data: DataFolder, buckets: Buckets, *, disk: int, log: int, ray: RaySettings, storage: str
    ) -> None:
        super().__init__(data, buckets, disk=disk, log=log)
        self._ray = ray
        self._storage = storage

    def validation_error(self, description: JobDescription) -> InvalidDescription | None:
        """Refuse a job for Python 2, which Ray does not support."""
        if description.execution.python_major_version != 2:
            return None
        return InvalidDescription(
            "The job needs Python 2, but this service runs jobs on Ray, with Python 3: port the script, or ask the"
            " administrator of the service to use the container runner, where the image has its own Python.",
            status=422,
            code="AT-628",
        )

    def _complete(self, spec: Spec, order: Order) -> Spec:
        # The bucket exists unless nothing was uploaded. The node reports a store that is still unavailable.
        with suppress(StorageUnavailable):
            self._buckets.create(order.key.tenant)
        image = order.description.execution.image
        notes = [f"This service runs jobs on Ray: the image {image} is ignored."] if image else []
        ray = RaySpec(
            tenant=order.key.tenant,
            job_id=order.key.job_id,
            address=self._ray.address,
            headers=dict(self._ray.headers),
            storage_url=self._storage,
            bucket=BUCKET,
            folder=job_folder(order.description.name, order.key.job_id),
            keys_file=str(self._data.storage_keys),
            storage_backend=self._buckets.rclone_backend(order.key.tenant),
        )
        return replace(spec, ray=ray, notes=[*notes, *spec.notes])
