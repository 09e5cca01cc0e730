"""Jobs in containers, on any engine that speaks Docker's API."""

from __future__ import annotations

import os
import re
from typing import Any

from airflow_training.api.description import JobDescription
from airflow_training.api.naming import job_folder
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.runners.runner import Order
from airflow_training.service.runners.service import SupervisedRunner

# Where the engine is, and how to prove who we are. Source: Docker's documentation of its command line.
_ENGINE = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG")


# What may be in an image's name, of which only the engine knows the grammar: it becomes a part of a path of its API.
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,511}")


class ContainerRunner(SupervisedRunner):
    """Runs each job in a container of the image that it names."""

    def objection(self, description: JobDescription) -> InvalidDescription | None:
        """Refuse what names no image."""
        image = description.execution.image
        if image and _REFERENCE.fullmatch(image) and ".." not in image:
            return None
        named = f"names the image {image!r}, which is no name of one" if image else "names no image"
        return InvalidDescription(
            f"The job {named}, and jobs run in containers here: set image, such as python:3.11.",
            status=422,
            code="AT-627",
        )

    def _place(self, order: Order) -> dict[str, Any]:
        labels = {"tenant": order.key.tenant, "job": order.key.job_id, "state": str(self._state(order.key))}
        return {
            "place": "airflow_training.service.runners.container.backend:ContainerPlace",
            "image": order.description.execution.image,
            "mount": f"/data/{job_folder(order.description.name, order.key.job_id)}",
            "engine": {name: os.environ[name] for name in _ENGINE if name in os.environ},
            "labels": {f"airflow-training.{name}": value for name, value in labels.items()},
        }
