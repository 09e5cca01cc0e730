"""The task that trains a model."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.configuration import conf

# Airflow has no public way to ask which Dag file it reads.
from airflow.sdk.definitions._internal.contextmanager import DagContext
from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout

from airflow_training.api.parameters import (
    SAVED_MODEL,
    TrainingParameters,
    is_literal,
    overridden,
    script_is_path,
    script_is_text,
)
from airflow_training.exceptions import InvalidParameters
from airflow_training.operators.links import TrainingJobLink

if TYPE_CHECKING:
    import jinja2
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.sdk import DAG, Context

    from airflow_training.operators.dry_run import DryRun
    from airflow_training.operators.run import TaskRun


class TrainingOperator(BaseOperator):
    """Trains a model on a remote training service and returns the location of the model.

    The task uploads the script and the data, submits the job and frees its worker slot; the triggerer then follows the
    job. Log lines appear in the task log within a second or two.

    A retry continues with the job of the previous try if that runs or has succeeded, and starts a new one if it failed.
    Clearing the task, or marking it as failed or successful, cancels its job.

    Args:
        job_name: Internal name of the job: letters, digits, `.`, `_`, `-`; at most 63 characters.
        script: The training script: a path, relative to the Dag file's folder, a URI for `ObjectStoragePath`, the
            program text, which has two lines or more, or `-m package.module`. A path or URI may be a template; a
            program is sent unchanged.
        source_dir: The folder of the code: a path, relative to the Dag file's folder, or a URI. Its files are the
            content of the job folder, without hidden ones and `__pycache__`; a path in `script` is relative to it.
        launcher: The command that runs the script in place of `python3`, such as `torchrun --nproc-per-node 2`, a
            string or a list.
        image: Container image to run in, such as `tensorflow/tensorflow:2.21.0`.
        completion_time: Time limit of the job, counted from its start: "20h", "90m", "1d", "1h30m", a duration of
            ISO 8601, or seconds. A job that takes longer is canceled. Any other text is an error, unless the task has
            an `execution_timeout`: then it is sent unchanged, for services with their own format.
        env: Variables of the job; `{"EPOCHS": 5}` reaches the script as `$EPOCHS` and as `--epochs=5`.
        args: Arguments of the script, after those of `env`: a list of words, `["fit", "--epochs", 5]`, or a mapping of
            options. `{"learning-rate": 0.1, "layers": [64, 32], "verbose": True}` is `--learning-rate=0.1 --layers 64
            32 --verbose`; an option that is None or False is left out.
        environment: Variables of the job that are not arguments.
        data: Files that the script reads: name in the job folder → path, URI, directory, Asset or bytes.
        resources: `{"cpus": 1, "gpus": 0, "memory": 2048}`, memory in MB. Without `memory` the service decides; this
            package's service allocates memory in proportion to the CPUs.
        requirements: Python requirements of the script: text as in a requirements.txt, a list, or the path, relative to
            the Dag file's folder, or URI of a file: `requirements.txt`, `pylock.toml`, `uv.lock`, or a `pyproject.toml`
            with one of these locks beside it. The file is read when the task runs.
        python_major_version: 2 or 3.
        python_version: The Python version, such as "3.12", which the machine of the job must have. In a container the
            image decides.
        model: What the job hands on: "SavedModel", wherever it is; or a path or glob in the job folder, such as
            `model.joblib` or `out/*.onnx`, of a file or a folder, of which the newest version is taken; or None for a
            job that leaves no model and hands on its folder.
        version: Version of the job API; by default that of the connection.
        config: Overrides any of these at run time, spelled as here or as in trainingClient (`jobName`).
        training_conn_id: The connection to the training service.
        model_destination: The folder for a copy of the model, written atomically: a path, or a URI
            for `ObjectStoragePath`, such as `s3://models/census/{{ ts_nodash }}`. An existing model is replaced. The
            task then returns the location of the copy: this folder, or a file in it.
        pending_timeout: How long the job may wait to start before it is canceled: a timedelta or seconds.
        durable: Whether a retry continues with the job of the previous try; otherwise it cancels it and starts a new
            one.
        cancel_on_kill: Whether a job is canceled when its task is cleared or marked, or fails without a retry that
            continues with the job.
        deferrable: Whether the triggerer follows the job; otherwise, and under `airflow dags test`, the worker does.
            By default the variable `AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE`, or else True.

    Returns:
        In XCom `return_value` the location of the model, a path for `ObjectStoragePath`; in `training_job` the job's
        id, its final status, the location, the duration in seconds, the metrics (see
        `airflow_training.api.metrics`), the parameters without secrets, and the map index; in `training_status` the
        status object while the job runs. The events of assets among the outlets carry location, job id, metrics and
        duration as well.

    Raises:
        InvalidParameters: When the Dag is parsed: values in the file are invalid, or its script does not exist.
        AirflowFailException: A retry cannot help: invalid parameters, rejected credentials, a job that left no model.
        TrainingError: Any other error: the service is unreachable, the job failed.

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
        "args": "json",
        "environment": "json",
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
        python_version: str | None = None,
        source_dir: Any = None,
        launcher: Any = None,
        args: Any = None,
        environment: Any = None,
        model: str | None = SAVED_MODEL,
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
        self.python_version = python_version
        self.source_dir = source_dir
        self.launcher = launcher
        self.args = args
        self.environment = environment
        self.model = model
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
        self._check_literals()

    def _check_literals(self) -> None:
        """Raise InvalidParameters for the errors that are certain when the Dag is parsed.

        The values of a mapped task are checked when it runs, as everything is if `config` is known only then. With
        markers of their own, templates cannot be recognized.
        """
        dag = self.get_dag()
        mapped = getattr(self, "_BaseOperator__from_mapped", False)
        if mapped or not (isinstance(self.config, Mapping) or is_literal(self.config)):
            return
        if dag and dag.jinja_environment_kwargs:
            return
        values = overridden(
            {name: getattr(self, attribute) for name, attribute in self.PARAMETERS.items()}, self.config
        )
        if isinstance(values["script"], os.PathLike):
            values["script"] = str(values["script"])
        errors = TrainingParameters.certain_errors(values, limited=self.execution_timeout is not None)
        if dag:
            errors += _missing_script(values["script"], values["source_dir"], _dag_folder(dag))
        if errors:
            raise InvalidParameters(errors)

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
                masked_secrets.mask_given(files.given(self))

    def validate(self, context: Context | None = None) -> DryRun:
        """Do what a run does before it connects: render, check, and find the files; return what would be sent.

        For tests of a Dag, and for `airflow-training validate`. No service is needed, and nothing is changed.

        Args:
            context: What the templates need, such as `{"ds": "2026-01-01", "params": {"epochs": 5}}`. Values that need
                more, such as the results of other tasks, are not checked but listed.

        Raises:
            InvalidParameters: Lists all errors.

        Example:
            >>> sent = dag.get_task("train").validate({"ds": "2026-01-01"})  # doctest: +SKIP
            >>> sent.command  # doctest: +SKIP
            'python3 train.py --day=2026-01-01'
            >>> sent.files  # doctest: +SKIP
            {'train.py': 1215, 'sales.csv': 48211}
        """
        from airflow_training.operators import dry_run  # noqa: PLC0415 - as in _run_of

        task = self.prepare_for_execution()
        dry_run.render(task, context)
        task._make_script()
        return dry_run.dry_run(task)

    def _make_script(self) -> None:
        """Make the script of `@task.training` from its function."""

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


def _missing_script(script: Any, source_dir: Any, folder: Path) -> list[str]:
    """List the script if it is a path below the folder of the Dag's file, and not there."""
    parts = [part for part in (source_dir, script) if part is not None]
    if not all(map(_is_relative, parts)) or not script_is_path(str(script)):
        return []
    file = folder.joinpath(*parts)
    return [] if os.path.lexists(file) else [f"script does not exist: {file}"]


def _is_relative(path: Any) -> bool:
    is_path = isinstance(path, (str, os.PathLike)) and is_literal(path)
    return is_path and "://" not in os.fspath(path) and not Path(path).is_absolute()


def _dag_folder(dag: DAG) -> Path:
    """The folder of a Dag's file.

    While Airflow reads that file, the Dag still has the file of the code that made it, which may be a library's.
    """
    module = sys.modules.get(DagContext.current_autoregister_module_name or "")
    return Path(getattr(module, "__file__", None) or dag.fileloc).parent


def _default_deferrable() -> bool:
    """Whether trainings are deferred if the Dag does not choose.

    Airflow writes its own default, False, into the `airflow.cfg` that it generates, so only the environment shows what
    the administrator wants.
    """
    chosen = "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE" in os.environ
    return conf.getboolean("operators", "default_deferrable") if chosen else True
