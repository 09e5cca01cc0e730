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

    from airflow_training.operators.run import TaskRun


class TrainingOperator(BaseOperator):
    """Trains a model on a remote training service and returns the location of its SavedModel.

    The task uploads the script and the data, submits the job and frees its worker slot; the triggerer then follows the
    job. Log lines appear in the task log within a second or two.

    A retry continues with the job of the previous try if that runs or has succeeded, and starts a new one if it failed.
    Clearing the task, or marking it as failed or successful, cancels its job.

    Args:
        job_name: Internal name of the job: letters, digits, `.`, `_`, `-`; at most 63 characters.
        script: The training script: a path, relative to the Dag file's folder, a URI for `ObjectStoragePath`, or the
            program text, which has two lines or more. A path or URI may be a template; a program is sent unchanged.
        image: Container image to run in, such as `tensorflow/tensorflow:2.21.0`.
        completion_time: Time limit of the job, counted from its start: "20h", "90m", "1d", "1h30m", a duration of
            ISO 8601, or seconds. A job that takes longer is canceled. Any other text is an error, unless the task has
            an `execution_timeout`: then it is sent unchanged, for services with their own format.
        env: Variables of the job; `{"EPOCHS": 5}` reaches the script as `$EPOCHS` and as `--epochs=5`.
        data: Files that the script reads: name in the job folder → path, URI, directory, Asset or bytes.
        resources: `{"cpus": 1, "gpus": 0, "memory": 2048}`, memory in MB. Without `memory` the service decides; this
            package's service allocates memory in proportion to the CPUs.
        requirements: Python requirements of the script, as in a requirements.txt; a string or a list.
        python_major_version: 2 or 3.
        version: Version of the job API; by default that of the connection.
        config: Overrides any of these at run time, spelled as here or as in trainingClient (`jobName`).
        training_conn_id: The connection to the training service.
        model_destination: The folder for a copy of the SavedModel, written atomically: a path, or a URI
            for `ObjectStoragePath`, such as `s3://models/census/{{ ts_nodash }}`. An existing model is replaced. The
            task then returns the location of the copy.
        pending_timeout: How long the job may wait to start before it is canceled: a timedelta or seconds.
        durable: Whether a retry continues with the job of the previous try; otherwise it cancels it and starts a new
            one.
        cancel_on_kill: Whether a job is canceled when its task is cleared or marked, or fails without a retry that
            continues with the job.
        deferrable: Whether the triggerer follows the job; otherwise, and under `airflow dags test`, the worker does.
            By default the variable `AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE`, or else True.

    Returns:
        In XCom `return_value` the location of the SavedModel, a path for `ObjectStoragePath`; in `training_job` the
        job's id, its final status, the location, the duration in seconds and the metrics (see
        `airflow_training.api.metrics`); in `training_status` the status object while the job runs. The events of
        assets among the outlets carry location, job id, metrics and duration as well.

    Raises:
        AirflowFailException: A retry cannot help: invalid parameters, rejected credentials.
        TrainingError: Any other error: the service is unreachable, the job failed, it left no SavedModel.

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

    # Airflow's operators have a `resources` of their own, which cannot be templated and misreads ours.
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
        self._task_run: TaskRun | None = None

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """Render templates, except in the text of a program, where braces mean something else."""
        if content is self.script:
            content = _literal(content)
        elif content is self.config and isinstance(content, Mapping) and id(content) not in (seen_oids or ()):
            content = {name: _literal(value) if name == "script" else value for name, value in content.items()}
        return super().render_template(content, context, jinja_env, seen_oids)

    def _do_render_template_fields(
        self, parent: Any, template_fields: Iterable[str], context: Context, jinja_env: Any, seen_oids: set[int]
    ) -> None:
        # The only hook that mapped tasks call too; Airflow stores the fields, masked, right after it.
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)
        if parent is self:
            from airflow_training.operators import files, masked_secrets  # noqa: PLC0415 - as in _run_of

            with suppress(InvalidParameters):  # `execute` raises it
                masked_secrets.mask_variables(files.given(self).get("env"))

    def execute(self, context: Context) -> str:
        """Upload, submit and follow the job, in the triggerer or here."""
        return self._run_of(context).execute()

    def execute_complete(self, context: Context, event: dict[str, Any], claim: dict[str, Any]) -> str:
        """Return the result of a job that a trigger followed to its end."""
        return self._run_of(context).complete(event, claim)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume on a worker; if the trigger died, handle its job."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            self._run_of(context).without_trigger(str(error))

    def on_kill(self) -> None:
        """Interrupt the task on this worker, which then cancels the job."""
        if self._task_run:
            self._task_run.interrupt()

    def get_openlineage_facets_on_start(self) -> OperatorLineage[Any, Any]:
        """Report to OpenLineage, if it is installed, the inputs of a training, which may run for long."""
        return self._lineage()

    def get_openlineage_facets_on_complete(self, task_instance: object) -> OperatorLineage[Any, Any]:
        """Report to OpenLineage the inputs, the model and the job of a training, also of a failed one."""
        return self._lineage()

    def _lineage(self) -> OperatorLineage[Any, Any]:
        # Only an installed OpenLineage calls this, and no Dag file needs it.
        from airflow_training.operators.lineage import lineage  # noqa: PLC0415

        return lineage(self, self._task_run)

    def _run_of(self, context: Context) -> TaskRun:
        # Airflow reads a Dag file again and again: what only a run needs is not imported there.
        from airflow_training.operators.run import TaskRun  # noqa: PLC0415

        self._task_run = TaskRun(self, context)
        return self._task_run


def _literal(script: Any) -> Any:
    from airflow.sdk import literal  # noqa: PLC0415 - only a run renders

    return literal(script) if isinstance(script, str) and script_is_text(script) else script


def _default_deferrable() -> bool:
    """Whether trainings are deferred if the Dag does not choose.

    Airflow writes its own default, False, into the `airflow.cfg` that it generates, so only the environment shows what
    the administrator wants.
    """
    chosen = "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE" in os.environ
    return conf.getboolean("operators", "default_deferrable") if chosen else True
