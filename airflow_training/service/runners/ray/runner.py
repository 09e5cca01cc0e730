"""Jobs on a Ray cluster, by its Jobs API."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from airflow_training.api.description import JobDescription
from airflow_training.api.naming import job_folder
from airflow_training.service.errors import InvalidDescription, StorageAway
from airflow_training.service.runners.runner import Order
from airflow_training.service.runners.service import SupervisedRunner
from airflow_training.service.settings import BUCKET, DataFolder, RaySettings
from airflow_training.service.storage.bucket import Buckets


class RayRunner(SupervisedRunner):
    """Runs each job on a node of a Ray cluster.

    Args:
        data: The data folder.
        buckets: Where the files of tenants are.
        disk: MB that a job may have in its folder.
        log: Bytes that the log of a job may have.
        ray: Where the cluster is.
        storage: The S3 endpoint of the service, as the nodes reach it.
    """

    def __init__(
        self, data: DataFolder, buckets: Buckets, *, disk: int, log: int, ray: RaySettings, storage: str
    ) -> None:
        super().__init__(data, buckets, disk=disk, log=log)
        self._ray = ray
        self._storage = storage
        self._keys_file: Path = data.storage_keys

    def objection(self, description: JobDescription) -> InvalidDescription | None:
        """Refuse what was written for the Python of old, which Ray has not."""
        if description.execution.python_major_version != 2:
            return None
        return InvalidDescription(
            "The job wants Python 2, and jobs run on Ray here, with Python 3: change the script, or have whoever runs"
            " the service use the container runner, where the image brings its Python.",
            status=422,
            code="AT-628",
        )

    def _place(self, order: Order) -> dict[str, Any]:
        image = order.description.execution.image
        # Where it is missing, nothing was uploaded, and the node finds out when the store is still away.
        with suppress(StorageAway):
            self._buckets.make(order.key.tenant)
        return {
            "place": "airflow_training.service.runners.ray.backend:RayPlace",
            "goes_on": True,
            "tenant": order.key.tenant,
            "job_id": order.key.job_id,
            "ray": {"address": self._ray.address, "headers": dict(self._ray.headers)},
            "storage": {
                "url": self._storage,
                "bucket": BUCKET,
                "folder": job_folder(order.description.name, order.key.job_id),
                "keys_file": str(self._keys_file),
                "backend": self._buckets.backend(order.key.tenant),
            },
            "notes": [f"Jobs run on Ray here: the image {image} is recorded and not used."] if image else [],
        }
