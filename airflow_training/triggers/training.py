"""The trigger that follows a training job, without a worker slot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.sdk.execution_time.xcom import XCom
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_training.exceptions import TrainingError
from airflow_training.hooks.training import TrainingHook
from airflow_training.reporting import PATIENCE, STATUS_KEY, report


class TrainingTrigger(BaseTrigger):
    """Follows a job to its end: its log into the task log, its status into the XCom `training_status`.

    It holds no secret: its arguments are stored by Airflow and shown in logs.

    Args:
        training_conn_id: The connection to the training service.
        job_id: The job.
        version: The job API's version, where it is not the connection's.

    Its one event is `{"status": …, "last_lines": […]}`, or `{"error": …, "retryable": …}` where the job
    could not be followed to its end.
    """

    def __init__(self, training_conn_id: str, job_id: str, version: str | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's base is not typed there
        self.training_conn_id = training_conn_id
        self.job_id = job_id
        self.version = version

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class and the arguments that make this trigger again elsewhere."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {"training_conn_id": self.training_conn_id, "job_id": self.job_id, "version": self.version},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Follow the job."""
        hook = TrainingHook(self.training_conn_id)
        try:
            async with await hook.aclient(version=self.version, policy=PATIENCE) as client:
                outcome = await report(client, self.job_id, log=self.log, publish=self._publish)
        except TrainingError as error:
            yield TriggerEvent({"error": str(error), "retryable": error.retryable})
        else:
            yield TriggerEvent({"status": outcome.status.to_wire(), "last_lines": list(outcome.last_lines)})

    async def _publish(self, status: dict[str, Any]) -> None:
        task = self.task_instance
        if task is None:
            raise AssertionError("the triggerer sets the task instance before it runs a trigger")
        await XCom.aset(
            STATUS_KEY,
            status,
            dag_id=task.dag_id,
            task_id=task.task_id,
            run_id=task.run_id,
            map_index=task.map_index if task.map_index is not None else -1,
        )
