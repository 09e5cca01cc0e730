"""Jobs as processes of this machine."""

from __future__ import annotations

import sys
from typing import Any

from airflow_training.api.description import JobDescription
from airflow_training.service.errors import InvalidDescription
from airflow_training.service.runners.runner import Order
from airflow_training.service.runners.service import SupervisedRunner
from airflow_training.service.runners.supervisor.python_version import missing_python


class ProcessRunner(SupervisedRunner):
    """Runs jobs as processes, each on a copy of the files that were uploaded."""

    def objection(self, description: JobDescription) -> InvalidDescription | None:
        """Refuse what needs a Python that this machine has not."""
        if not (version := missing_python(description.execution)):
            return None
        return InvalidDescription(
            f"The job wants Python {version}, and jobs run as processes here, with Python {sys.version_info.major}."
            f"{sys.version_info.minor}: change the script, or have whoever runs the service use the container runner,"
            " where the image brings its Python.",
            status=422,
            code="AT-629",
        )

    def _place(self, order: Order) -> dict[str, Any]:
        image = order.description.execution.image
        return {
            "place": "airflow_training.service.runners.process.backend:ProcessPlace",
            "notes": [f"Jobs run as processes here: the image {image} is recorded and not used."] if image else [],
        }
