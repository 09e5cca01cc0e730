"""The button "Training job" of a task: it leads to the job, from its submit on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class TrainingJobLink(BaseOperatorLink):
    """Leads to the page that the connection's `job_page_url` names, or else to the job API's status of the job."""

    name = "Training job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The address; Airflow asks for it when a worker has done its part, also when the task defers."""
        return getattr(operator, "job_page", "")
