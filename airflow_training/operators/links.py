"""The button "Training job" of a task: it leads to the job, from its submit on."""

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
        """The address, which the worker has stored after the submit.

        Airflow asks for it, and stores it anew, whenever a worker has done its part, also when the task defers.
        """
        # A Dag's file is read again and again: what only a run needs is not imported for that.
        from airflow.sdk.execution_time.xcom import XCom  # noqa: PLC0415

        stored = XCom.get_one(
            key=self.xcom_key,
            dag_id=ti_key.dag_id,
            task_id=ti_key.task_id,
            run_id=ti_key.run_id,
            map_index=ti_key.map_index,
        )
        return str(stored or "")
