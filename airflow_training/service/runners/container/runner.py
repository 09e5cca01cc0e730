"""The runner for jobs in containers, on any engine with Docker's API."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from airflow_training.api.description import JobDescription
from airflow_training.api.naming import job_folder
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.runners.run_folder import ContainerSpec, Spec
from airflow_training.service.runners.service import SupervisedRunner
from airflow_training.service.scheduling.job import Order

# The engine's URL and credentials. Source: Docker's documentation of its command line.
_ENGINE_VARIABLES = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG")
# The engine validates image names. This only keeps them from altering the path of an API request.
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}")


class ContainerRunner(SupervisedRunner):
    """Runs each job in a container of the image that it names."""

    kind = "container"

    def validation_error(self, description: JobDescription) -> InvalidDescription | None:
        """Refuse a job without a valid image name."""
        image = description.execution.image
        if image and _IMAGE.fullmatch(image) and ".." not in image:
            return None
        found = f"image {image!r} is not a valid name" if image else "job has no image"
        return InvalidDescription(
            f"The {found}, but this service runs jobs in containers: set image, such as python:3.11.",
            status=422,
            code="AT-627",
        )

    def _complete(self, spec: Spec, order: Order) -> Spec:
        labels = {"tenant": order.key.tenant, "job": order.key.job_id, "state": str(self._state(order.key))}
        container = ContainerSpec(
            image=order.description.execution.image or "",
            mount=f"/data/{job_folder(order.description.name, order.key.job_id)}",
            engine={name: os.environ[name] for name in _ENGINE_VARIABLES if name in os.environ},
            labels={f"airflow-training.{name}": value for name, value in labels.items()},
        )
        note = f"This service runs jobs with the Python of their image: pythonVersion {spec.python} is ignored."
        return replace(spec, container=container, notes=[*([note] if spec.python else []), *spec.notes])
