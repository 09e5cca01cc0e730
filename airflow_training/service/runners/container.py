"""Jobs in containers, on any engine that speaks Docker's API."""

from __future__ import annotations

import os
from typing import Any

from airflow_training.jobs.description import JobDescription
from airflow_training.jobs.identity import job_folder
from airflow_training.service.runners.runner import Order
from airflow_training.service.runners.supervised import SupervisedRunner

# Where the engine is, and how to prove who we are. Source: Docker's documentation of its command line.
_ENGINE = ("DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_CONFIG")


class ContainerRunner(SupervisedRunner):
    """Runs each job in a container of the image that it names."""

    def objection(self, description: JobDescription) -> str:
        """Refuse what names no image."""
        if description.execution.image:
            return ""
        return "The job names no image, and jobs run in containers here: set image, such as python:3.11."

    def _place(self, order: Order) -> dict[str, Any]:
        labels = {"tenant": order.key.tenant, "job": order.key.job_id, "state": str(self._state(order.key))}
        return {
            "place": "airflow_training.service.runners.container_place:ContainerPlace",
            "image": order.description.execution.image,
            "mount": f"/data/{job_folder(order.description.name, order.key.job_id)}",
            "engine": {name: os.environ[name] for name in _ENGINE if name in os.environ},
            "labels": {f"airflow-training.{name}": value for name, value in labels.items()},
        }
