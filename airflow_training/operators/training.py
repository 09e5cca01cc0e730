"""The task that trains a model."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf
from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout

from airflow_training.api.parameters import TrainingParameters, script_is_text
from airflow_training.exceptions import InvalidParameters
from airflow_training.operators.links import TrainingJobLink

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import Context

    from airflow_training.operators.execution import Execution


class TrainingOperator(BaseOperator):
    """Trains a model on a remote training service and hands on the location of its SavedModel.

    The task uploads the script and the data, submits the job and gives its worker slot back; the triggerer
    then follows the job. Log lines appear in the task log within a second or two.

    A retry goes on with the job of the try before if that runs or has succeeded, and starts a new one after it failed.
    Who clears the task, or marks it as failed or successful, has its job canceled.

    Args:
        job_name: Internal name of the job: letters, digits, `.`, `_`, `-`; at most 63 characters.
        script: The training script: a path (relative ones start at the Dag file's folder), a URI that
            `ObjectStoragePath` takes, or the program text, which has two lines or more. A path or URI may be a
            template; a program is sent as it was written.
        image: Container image to run in, such as `tensorflow/tensorflow:2.21.0`.
        completion_time: Time allotted to the job, counted from its start: "20h", "90m", "1d", "1h30m", a duration of
            ISO 8601, or seconds. A job that takes longer is canceled. What cannot be read as a time is a mistake; if
            the task has an `execution_timeout`, it is sent as it is, for a service with words of its own.
        env: Variables of the job; `{"EPOCHS": 5}` reaches the script as `$EPOCHS` and as `--epochs=5`.
        data: Files that the script reads: name in the job folder → path, URI, directory, Asset or bytes.
        resources: `{"cpus": 1, "gpus": 0, "memory": 2048}`, memory in MB. Without `memory` the service decides; the one
            of this package gives the job the share of its cpus.
        requirements: Python requirements of the script, as in a requirements.txt; a text or a list.
        python_major_version: 2 or 3.
        version: Version of the job API; that of the connection where it is not given.
        config: Overrides of all of these at run time, in this spelling or in trainingClient's (`jobName`).
        training_conn_id: The connection to the training service.
        model_destination: The folder that a copy of the SavedModel becomes, whole or not at all: a path, or a URI that
            `ObjectStoragePath` takes, such as `s3://models/census/{{ ts_nodash }}`. A model that is there is replaced.
            The location of the copy is then the one that is handed on.
        pending_timeout: How long the job may wait for its start before it is canceled: a timedelta or seconds.
        durable: Whether a retry goes on with the job of the try before; otherwise it cancels it and starts a new one.
        cancel_on_kill: Whether a job is canceled when its task is cleared or marked, or fails with no retry to go on
            with the job.
        deferrable: Whether the triggerer follows the job; otherwise, and under `airflow dags test`, the worker does.
            True, where neither this nor the variable `AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE` says otherwise.

    Returns:
        In XCom `return_value` the location of the SavedModel, a path that `ObjectStoragePath` takes; in
        `training_job` the job's id, its final status, the location, the duration in seconds and the metrics (see
        `airflow_training.api.metrics`); in `training_status` the status object while the job runs. The events of
        assets among the outlets have location, job id, metrics and duration as well.

    Raises:
        AirflowFailException: What a retry cannot heal: wrong parameters, refused credentials.
        TrainingError: All else: the service is unreachable, the job failed, it left no SavedModel.

    Example:
        >>> TrainingOperator(  # doctest: +SKIP
        ...     task_id="train",
        ...     job_name="census",
        ...     script="census/train.py",
        ...     data={"adult.data.gz": "census/adult.data.gz"},
        ...     env={"TRAIN_DATA": "adult.data.gz", "EPOCHS": 8},
        ...     requirements="tensorflow-cpu==2.21.0",
        ...     image="tensorflow/tensorflow:2.21.0",
        ...     completion_time="1h",
        ...     resources={"cpus": 2, "memory": 4096},
        ... )
    """

    # Airflow's operators have a `resources` of their own, which cannot be templated and reads ours wrongly.
    PARAMETERS: ClassVar[dict[str, str]] = {
        name: {"resources": "job_resources"}.get(name, name) for name in TrainingParameters.model_fields
    }

    template_fields: Sequence[str] = (*PARAMETERS.values(), "config", "training_conn_id", "model_destination")
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "env": "json",
        "data": "json",
        "job_resources": "json",
        "config": "json",
        "script": "py",
    }
    operator_extra_links = (TrainingJobLink(),)
    ui_color = "#e9f2e4"

    def __init__(
        self,
        *,
        job_name: str,
        script: Any,
        image: str,
        completion_time: str | int,
        env: Any = None,
        data: Any = None,
        resources: Any = None,
        requirements: Any = None,
        python_major_version: int | str = 3,
        version: str | None = None,
        config: Mapping[str, Any] | str | None = None,
        training_conn_id: str = "training_default",
        model_destination: Any = None,
        pending_timeout: timedelta | float | None = None,
        durable: bool = True,
        cancel_on_kill: bool = True,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job_name = job_name
        self.script = script
        self.image = image
        self.completion_time = completion_time
        self.env = env
        self.data = data
        self.job_resources = resources
        self.requirements = requirements
        self.python_major_version = python_major_version
        self.version = version
        self.config = config
        self.training_conn_id = training_conn_id
        self.model_destination = model_destination
        self.deferrable = _default_deferrable() if deferrable is None else deferrable
        self.pending_timeout = (
            pending_timeout
            if isinstance(pending_timeout, timedelta) or pending_timeout is None
            else timedelta(seconds=pending_timeout)
        )
        self.durable = durable
        self.cancel_on_kill = cancel_on_kill
        self._execution: Execution | None = None

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render templates, but not the text of a program: braces mean something else there."""
        if content is self.script:
            content = _as_written(content)
        elif content is self.config and isinstance(content, Mapping) and id(content) not in (seen_oids or ()):
            content = {name: _as_written(value) if name == "script" else value for name, value in content.items()}
        return super().render_template(content, context, jinja_env, seen_oids)

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        # The only one that is called for a mapped task too; Airflow stores the fields, masked, right after it.
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self:
            from airflow_training.operators import inputs, masked_secrets  # noqa: PLC0415 - as in _executed

            with suppress(InvalidParameters):  # it is raised when the task is executed
                masked_secrets.mask_variables(inputs.given(self).get("env"))

    def execute(self, context: Context) -> str:
        """Upload, submit, and wait for the end: in the triggerer, or here."""
        return self._executed(context).execute()

    def execute_complete(self, context: Context, event: dict[str, Any], claim: dict[str, Any]) -> str:
        """Hand on what the trigger found at the end of the job."""
        return self._executed(context).complete(event, claim)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume on a worker; where the trigger died, see to its job."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            self._executed(context).without_trigger(str(error))

    def on_kill(self) -> None:
        """Interrupt what the worker does for the task, which then cancels the job."""
        if self._execution:
            self._execution.interrupt()

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Tell OpenLineage, where it is installed, what a training reads that may run for long."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any]:
        """Tell OpenLineage what the training has read, and its model and job; also of one that failed."""
        return self._lineage()

    def _lineage(self) -> OperatorLineage[Any, Any]:
        # Only OpenLineage asks for it, so that it is there, and no Dag's file needs it.
        from airflow_training.operators.lineage import lineage  # noqa: PLC0415

        return lineage(self, self._execution)

    def _executed(self, context: Context) -> Execution:
        # A Dag's file is read again and again: what only a run needs is not imported for that.
        from airflow_training.operators.execution import Execution  # noqa: PLC0415

        self._execution = Execution(self, context)
        return self._execution


def _as_written(script: Any) -> Any:
    from airflow.sdk import literal  # noqa: PLC0415 - only a run renders

    return literal(script) if isinstance(script, str) and script_is_text(script) else script


def _default_deferrable() -> bool:
    """Whether trainings are deferred where the Dag does not say.

    Airflow's own default is False, and it writes that into the `airflow.cfg` that it makes. There it says nothing of
    what anybody wants; only in the environment it does.
    """
    chosen = "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE" in os.environ
    return conf.getboolean("operators", "default_deferrable") if chosen else True
