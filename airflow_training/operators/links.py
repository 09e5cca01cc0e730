"""The button "Training job" of a task, from the submit on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class TrainingJobLink(BaseOperatorLink):
    """Leads to the page that the connection's `job_page_url` names, or else to the tab *Training* of the task."""

    name = "Training job"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """The URL, which the worker stores after the submit.

        Airflow calls this, and stores the URL again, after each part of the task on a worker, also when it defers.
        """
        # Airflow reads a Dag file again and again: what only a run needs is not imported there.
        from airflow.sdk.execution_time.xcom import XCom  # noqa: PLC0415

        stored = XCom.get_one(
            key=self.xcom_key,
            dag_id=ti_key.dag_id,
            task_id=ti_key.task_id,
            run_id=ti_key.run_id,
            map_index=ti_key.map_index,
        )
        return str(stored or "")
