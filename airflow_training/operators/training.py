"""The task that trains a model."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time import task_runner

from airflow_training.client import blocking
from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import Upload
from airflow_training.client.training import TrainingClient
from airflow_training.exceptions import InvalidParameters, JobCanceled, JobFailed, SavedModelMissing, TrainingError
from airflow_training.hooks.training import TrainingHook
from airflow_training.jobs.description import JobDescription
from airflow_training.jobs.identity import job_folder, job_id
from airflow_training.jobs.parameters import TrainingParameters, overridden
from airflow_training.jobs.saved_model import find_saved_model
from airflow_training.jobs.status import JobState, JobStatus
from airflow_training.operators import inputs
from airflow_training.reporting import PATIENCE, STATUS_KEY, Outcome, report
from airflow_training.triggers.training import TrainingTrigger

if TYPE_CHECKING:
    from airflow.sdk import Context

RESULT_KEY = "training_job"
"""The XCom that holds the result: job id, final status, location, duration in seconds."""


class TrainingOperator(BaseOperator):
    """Trains a model on a remote training service and hands on the location of its SavedModel.

    The task uploads the script and the data, submits the job and gives its worker slot back; the triggerer
    then follows the job. Log lines appear in the task log within a second or two.

    Args:
        job_name: Internal name of the job: letters, digits, `.`, `_`, `-`; at most 63 characters.
        script: The training script: a path (relative ones start at the Dag file's folder), a URI that
            `ObjectStoragePath` takes, or the program text, which has two lines or more.
        image: Container image to run in, such as `tensorflow/tensorflow:2.21.0`.
        completion_time: Time allotted to the job, such as "20h", or seconds. What it means is the service's to say;
            that of this package records it.
        env: Variables of the job; `{"EPOCHS": 5}` reaches the script as `$EPOCHS` and as `--epochs=5`.
        data: Files that the script reads: name in the job folder → path, URI, directory, Asset or bytes.
        resources: `{"cpus": 1, "gpus": 0, "memory": 1024}`, memory in MB.
        requirements: Python requirements of the script, as in a requirements.txt; a text or a list.
        python_major_version: 2 or 3.
        version: Version of the job API; that of the connection where it is not given.
        config: Overrides of all of these at run time, in this spelling or in trainingClient's (`jobName`).
        training_conn_id: The connection to the training service.
        deferrable: Whether the triggerer follows the job; otherwise, and under `airflow dags test`, the worker does.

    Returns:
        In XCom `return_value` the location of the SavedModel, a path that `ObjectStoragePath` takes; in
        `training_job` the job's id, its final status, the location and the duration in seconds; in
        `training_status` the status object while the job runs.

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
    _ATTRIBUTES: ClassVar[dict[str, str]] = {
        name: {"resources": "job_resources"}.get(name, name) for name in TrainingParameters.model_fields
    }

    template_fields: Sequence[str] = (*_ATTRIBUTES.values(), "config", "training_conn_id")
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "env": "json",
        "data": "json",
        "job_resources": "json",
        "config": "json",
        "script": "py",
    }
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
        training_conn_id: str = TrainingHook.default_conn_name,
        deferrable: bool = True,
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
        self.deferrable = deferrable
        self._submitted: tuple[ClientSettings, str] | None = None

    def execute(self, context: Context) -> str:
        """Upload, submit, and wait for the end: in the triggerer, or here."""
        with _ErrorsForAirflow():
            parameters, files = self._describe()
            name = parameters.job_name
            identity = self._job_id(context)
            client = self._hook().client(version=parameters.version)
            asyncio.run(self._start(client, parameters, files, identity))
            folder = job_folder(name, identity)
        if self.deferrable and _triggers_can_ask():
            self.defer(
                trigger=TrainingTrigger(self.training_conn_id, identity, parameters.version),
                method_name=self.execute_complete.__name__,
                kwargs={"folder": folder, "version": parameters.version},
            )
        with _ErrorsForAirflow():
            client = self._hook().client(version=parameters.version, policy=PATIENCE)
            outcome = asyncio.run(self._follow(context, client, identity))
            return self._finish(context, outcome, folder, parameters.version)

    def execute_complete(self, context: Context, event: dict[str, Any], folder: str, version: str | None) -> str:
        """Hand on what the trigger found at the end of the job."""
        if error := event.get("error"):
            raise TrainingError(error) if event.get("retryable") else AirflowFailException(error)
        outcome = Outcome(JobStatus.model_validate(event["status"]), event["last_lines"])
        with _ErrorsForAirflow():
            return self._finish(context, outcome, folder, version)

    def on_kill(self) -> None:
        """Cancel the job of a task that is ended while it holds a worker."""
        if self._submitted:
            blocking.run(_cancel(*self._submitted))

    def _describe(self) -> tuple[TrainingParameters, list[Upload]]:
        """Find every mistake there is, before a byte is sent."""
        dag = self.get_dag()
        folder = Path(dag.folder if dag else ".")
        parameters: TrainingParameters | None = None
        values: dict[str, Any] = {}
        mistakes: list[str] = []
        try:
            given = {name: getattr(self, attribute) for name, attribute in self._ATTRIBUTES.items()}
            values = overridden(given, self.config)
            values["script"] = inputs.location(values["script"])
            parameters = TrainingParameters.read(values)
        except InvalidParameters as error:
            mistakes += error.mistakes
        mistakes += inputs.find_mistakes(values, folder)
        if mistakes or parameters is None:
            raise InvalidParameters(mistakes)
        return parameters, inputs.uploads(parameters, folder)

    def _job_id(self, context: Context) -> str:
        ti = context["ti"]
        map_index = ti.map_index if ti.map_index is not None else -1
        return job_id(ti.dag_id, ti.run_id, ti.task_id, map_index, ti.try_number)

    def _hook(self) -> TrainingHook:
        return TrainingHook(self.training_conn_id)

    async def _start(
        self, client: TrainingClient, parameters: TrainingParameters, files: list[Upload], identity: str
    ) -> None:
        folder = job_folder(parameters.job_name, identity)
        async with client:
            storage = await client.storage()
            self.log.info("Uploading %d file%s to %s", len(files), "" if len(files) == 1 else "s", folder)
            await storage.upload(folder, files, self._uploaded)
            self._submitted = (client.settings, identity)
            status = await client.submit(identity, JobDescription.of(parameters))
        self.log.info("Submitted job %s (%s) to %s", identity, status.state.value, client.settings.base_url)

    def _uploaded(self, file: Upload, size: int) -> None:
        self.log.info("Uploaded %s (%s bytes)", file.name, f"{size:,}")

    async def _follow(self, context: Context, client: TrainingClient, identity: str) -> Outcome:
        async def publish(status: dict[str, Any]) -> None:
            context["ti"].xcom_push(STATUS_KEY, status)

        async with client:
            return await report(client, identity, log=self.log, publish=publish)

    def _finish(self, context: Context, outcome: Outcome, folder: str, version: str | None) -> str:
        status = outcome.status
        context["ti"].xcom_push(STATUS_KEY, status.to_wire())
        _check_success(outcome)
        key = asyncio.run(_saved_model(self._hook().client(version=version), status, folder))
        location = f"training://{self.training_conn_id}@data/{key}"
        duration = status.duration.total_seconds() if status.duration else None
        result = {"job_id": status.job_id, "status": status.to_wire(), "location": location, "duration": duration}
        context["ti"].xcom_push(RESULT_KEY, result)
        self.log.info("The SavedModel is at %s", location)
        return location


class _ErrorsForAirflow:
    """Gives Airflow one clear sentence, and no retries where a retry cannot help.

    The cause stays at hand for a debugger (`__context__`), but the task log is spared its stack.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, TrainingError):
            if error.retryable:
                raise error.with_traceback(None) from None
            raise AirflowFailException(str(error)) from None


def _triggers_can_ask() -> bool:
    """Whether a trigger would get its connection: under `airflow dags test` Airflow 3.3 has none for it."""
    return hasattr(task_runner.SUPERVISOR_COMMS, "asend")


async def _cancel(settings: ClientSettings, identity: str) -> None:
    async with TrainingClient(settings, RetryPolicy(budget=5)) as client:
        await client.cancel(identity)


def _check_success(outcome: Outcome) -> None:
    status = outcome.status
    if status.state is JobState.SUCCEEDED:
        return
    job = f"The training job {status.name} ({status.job_id})"
    if status.state is JobState.CANCELED:
        raise JobCanceled(f"{job} was canceled: {status.message or 'no reason given'}.", job_id=status.job_id)
    end = "\n".join(outcome.last_lines)
    raise JobFailed(
        f"{job} failed: {status.message or 'the service gives no reason'}. Mend what the end of its log tells, then"
        f" clear the task to train again:\n{end}",
        job_id=status.job_id,
    )


async def _saved_model(client: TrainingClient, status: JobStatus, folder: str) -> str:
    async with client:
        storage = await client.storage()
        found = find_saved_model(await storage.keys(folder))
    if not found:
        raise SavedModelMissing(
            f"The training job {status.name} ({status.job_id}) succeeded but left no SavedModel: no saved_model.pb"
            f" lies below {folder}. The script must save its model in its working directory.",
            job_id=status.job_id,
        )
    return found
