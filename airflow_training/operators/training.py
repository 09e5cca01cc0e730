"""The task that trains a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowTaskTerminated,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
)
from airflow.sdk.execution_time import task_runner

from airflow_training.client.storage import Upload
from airflow_training.client.training import TrainingClient
from airflow_training.exceptions import (
    InvalidParameters,
    JobCanceled,
    JobError,
    JobTimedOut,
    TrainingError,
    TriggerFailed,
)
from airflow_training.hooks.training import TrainingHook
from airflow_training.jobs.description import JobDescription
from airflow_training.jobs.limits import Limits, read_duration
from airflow_training.jobs.parameters import TrainingParameters, overridden
from airflow_training.jobs.status import JobStatus
from airflow_training.operators import inputs
from airflow_training.operators.claim import Claim, ClaimStore
from airflow_training.operators.interruption import Interruptible
from airflow_training.operators.reattachment import Reattachment, cancel, unused_generation
from airflow_training.operators.result import check_success, saved_model
from airflow_training.reporting import PATIENCE, STATUS_KEY, Outcome, report
from airflow_training.triggers.training import JOB_ID_KEY, TrainingTrigger, error_of

if TYPE_CHECKING:
    from airflow.sdk import Context

T = TypeVar("T")

RESULT_KEY = "training_job"
"""The XCom that holds the result: job id, final status, location, duration in seconds."""

# A task that Airflow kills has about five seconds left.
_LAST_SECONDS = 2.0


class TrainingOperator(BaseOperator):
    """Trains a model on a remote training service and hands on the location of its SavedModel.

    The task uploads the script and the data, submits the job and gives its worker slot back; the triggerer
    then follows the job. Log lines appear in the task log within a second or two.

    A retry goes on with the job of the try before while that runs or has succeeded, and starts a new one after it
    failed. Who clears the task, or marks it as failed or successful, has its job canceled.

    Args:
        job_name: Internal name of the job: letters, digits, `.`, `_`, `-`; at most 63 characters.
        script: The training script: a path (relative ones start at the Dag file's folder), a URI that
            `ObjectStoragePath` takes, or the program text, which has two lines or more.
        image: Container image to run in, such as `tensorflow/tensorflow:2.21.0`.
        completion_time: Time allotted to the job, counted from its start: "20h", "90m", "1d", "1h30m", a duration of
            ISO 8601, or seconds. A job that takes longer is canceled. What cannot be read as a time is sent as it is,
            and only the service judges it.
        env: Variables of the job; `{"EPOCHS": 5}` reaches the script as `$EPOCHS` and as `--epochs=5`.
        data: Files that the script reads: name in the job folder → path, URI, directory, Asset or bytes.
        resources: `{"cpus": 1, "gpus": 0, "memory": 1024}`, memory in MB.
        requirements: Python requirements of the script, as in a requirements.txt; a text or a list.
        python_major_version: 2 or 3.
        version: Version of the job API; that of the connection where it is not given.
        config: Overrides of all of these at run time, in this spelling or in trainingClient's (`jobName`).
        training_conn_id: The connection to the training service.
        pending_timeout: How long the job may wait for its start before it is canceled: a timedelta or seconds.
        durable: Whether a retry goes on with the job of the try before; otherwise it cancels it and starts a new one.
        cancel_on_kill: Whether a job is canceled when its task is killed, cleared or marked.
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
        pending_timeout: timedelta | float | None = None,
        durable: bool = True,
        cancel_on_kill: bool = True,
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
        self.pending_timeout = (
            pending_timeout
            if isinstance(pending_timeout, timedelta) or pending_timeout is None
            else timedelta(seconds=pending_timeout)
        )
        self.durable = durable
        self.cancel_on_kill = cancel_on_kill
        self._work = Interruptible()
        self._claimed: Claim | None = None

    def execute(self, context: Context) -> str:
        """Upload, submit, and wait for the end: in the triggerer, or here."""
        with _ErrorsForAirflow():
            claim = self._run(self._begin(context))
        if self.deferrable and _triggers_can_ask():
            limits = self._limits(context, claim).to_dict()
            self.defer(
                trigger=TrainingTrigger(
                    claim.training_conn_id, claim.job_id, claim.version, limits, self.cancel_on_kill
                ),
                method_name=self.execute_complete.__name__,
                kwargs={"claim": claim.to_dict()},
            )
        with _ErrorsForAirflow(), _over_after_its_end(context, claim):
            outcome = self._run(self._follow(context, claim))
            return self._run(self._result(context, claim, outcome))

    def execute_complete(self, context: Context, event: dict[str, Any], claim: dict[str, Any]) -> str:
        """Hand on what the trigger found at the end of the job."""
        known = Claim(**claim)
        with _ErrorsForAirflow(), _over_after_its_end(context, known):
            if "error" in event:
                raise error_of(event)
            outcome = Outcome(JobStatus.model_validate(event["status"]), event["last_lines"])
            return self._run(self._result(context, known, outcome))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Resume on a worker; where the trigger died, see to its job."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            with _ErrorsForAirflow():
                raise TriggerFailed(self._run(self._without_trigger(context, str(error)))) from None

    def on_kill(self) -> None:
        """Interrupt what the worker does for the task, which then cancels the job."""
        self._work.interrupt()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            return self._work.run(work)
        except (asyncio.CancelledError, AirflowTaskTimeout) as error:
            timeout = isinstance(error, AirflowTaskTimeout)
            if not self._claimed:
                raise error if timeout else AirflowTaskTerminated("The task was killed.") from None
            end = "was canceled" if self._claimed.over else "may still run"
            job = f"the training job {self._claimed.name} ({self._claimed.job_id}) {end}."
            if timeout:
                raise JobTimedOut(f"The execution_timeout passed; {job}", job_id=self._claimed.job_id) from None
            raise JobCanceled(f"The task was killed; {job}", job_id=self._claimed.job_id) from None

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

    async def _begin(self, context: Context) -> Claim:
        """Go on with the job of an earlier try, or start one."""
        store = ClaimStore(context)
        decision = await Reattachment(
            store,
            self.log,
            training_conn_id=self.training_conn_id,
            durable=self.durable,
            cancel_on_kill=self.cancel_on_kill,
        ).decide()
        claim = decision if isinstance(decision, Claim) else await self._start(store, decision)
        context["ti"].xcom_push(JOB_ID_KEY, claim.job_id)
        return claim

    async def _start(self, store: ClaimStore, generation: int | None) -> Claim:
        parameters, files = self._describe()
        async with self._hook().client(version=parameters.version) as client:
            generation = generation or await unused_generation(store, client)
            claim = store.write(
                Claim(
                    job_id=store.job_id(generation),
                    generation=generation,
                    max_tries=store.max_tries,
                    name=parameters.job_name,
                    training_conn_id=self.training_conn_id,
                    version=parameters.version,
                    completion_time=parameters.completion_time,
                )
            )
            async with self._canceled_on_kill(store, client, claim):
                await self._upload(client, claim, files)
                await self._submit(client, claim, parameters)
        return store.write(claim.accepted())

    async def _upload(self, client: TrainingClient, claim: Claim, files: Sequence[Upload]) -> None:
        def done(file: Upload, size: int, sent: bool) -> None:
            self.log.info(
                "%s %s (%s bytes)", "Uploaded" if sent else "Unchanged on the storage:", file.name, f"{size:,}"
            )

        storage = await client.storage()
        self.log.info("Uploading %d file%s to %s", len(files), "" if len(files) == 1 else "s", claim.folder)
        await storage.upload(claim.folder, files, done)

    async def _submit(self, client: TrainingClient, claim: Claim, parameters: TrainingParameters) -> None:
        submit = asyncio.ensure_future(client.submit(claim.job_id, JobDescription.of(parameters)))
        try:
            status = await asyncio.shield(submit)
        except (asyncio.CancelledError, AirflowTaskTimeout):
            # A request that is under way would arrive after the one that cancels its job.
            await asyncio.wait([submit], timeout=_LAST_SECONDS)
            submit.cancel()
            raise
        self.log.info("Submitted job %s (%s) to %s", claim.job_id, status.state.value, client.settings.base_url)

    async def _follow(self, context: Context, claim: Claim) -> Outcome:
        async def push(key: str, value: Any) -> None:
            context["ti"].xcom_push(key, value)

        client = self._hook(claim).client(version=claim.version, policy=PATIENCE)
        async with client, self._canceled_on_kill(ClaimStore(context), client, claim):
            limits = self._limits(context, claim)
            return await report(client, claim.job_id, log=self.log, store=push, limits=limits)

    @asynccontextmanager
    async def _canceled_on_kill(self, store: ClaimStore, client: TrainingClient, claim: Claim) -> AsyncIterator[None]:
        self._claimed = claim
        try:
            yield
        except (asyncio.CancelledError, AirflowTaskTimeout):
            if self.cancel_on_kill:
                try:
                    await asyncio.wait_for(client.cancel(claim.job_id), _LAST_SECONDS)
                    self._claimed = store.write(replace(claim, over=True))
                except Exception as error:  # noqa: BLE001 - the task ends in any case; this is for its log
                    self.log.warning("The job %s could not be canceled: %s", claim.job_id, error or "no answer in time")
            raise

    async def _result(self, context: Context, claim: Claim, outcome: Outcome) -> str:
        status = outcome.status
        context["ti"].xcom_push(STATUS_KEY, status.to_wire())
        check_success(outcome)
        async with self._hook(claim).client(version=claim.version) as client:
            key = await saved_model(client, outcome, claim.folder)
        location = f"training://{claim.training_conn_id}@data/{key}"
        duration = status.duration.total_seconds() if status.duration else None
        result = {"job_id": status.job_id, "status": status.to_wire(), "location": location, "duration": duration}
        context["ti"].xcom_push(RESULT_KEY, result)
        self.log.info("The SavedModel is at %s", location)
        return location

    async def _without_trigger(self, context: Context, reason: str) -> str:
        """See to a job whose trigger died: a retry goes on with it, and without a retry it is canceled."""
        store = ClaimStore(context)
        claim = store.read()
        died = f"The trigger that followed the training job died ({reason})."
        if claim is None or claim.over:
            return died
        job = f"the job {claim.job_id}"
        if self.durable and context["ti"].try_number <= store.max_tries:
            return f"{died} The retry goes on with {job}."
        if not self.cancel_on_kill:
            return f"{died} There is no retry; {job} goes on, as cancel_on_kill=False asks for."
        try:
            await cancel(claim)
        except TrainingError as error:
            return f"{died} There is no retry, and {job} could not be canceled: {error}"
        store.write(replace(claim, over=True))
        return f"{died} There is no retry, so {job} was canceled; clear the task to train again."

    def _hook(self, claim: Claim | None = None) -> TrainingHook:
        return TrainingHook(claim.training_conn_id if claim else self.training_conn_id)

    def _limits(self, context: Context, claim: Claim) -> Limits:
        started = context["ti"].start_date
        return Limits(
            submitted=datetime.fromisoformat(claim.submitted or started.isoformat()),
            # Airflow does not enforce it while the task is deferred.
            deadline=started + self.execution_timeout if self.execution_timeout else None,
            completion_time=read_duration(claim.completion_time),
            pending_timeout=self.pending_timeout,
        )


@contextmanager
def _over_after_its_end(context: Context, claim: Claim) -> Iterator[None]:
    """Remember that nothing can come of a job any more, so that the next try starts a new one."""
    try:
        yield
    except JobError as error:
        if error.over:
            ClaimStore(context).write(replace(claim, over=True))
        raise


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
