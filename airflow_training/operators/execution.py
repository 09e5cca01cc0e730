"""What a worker does for a task: from the description of the job to its submit, and from its end to the result."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.execution_time import task_runner

from airflow_training.api.durations import read_duration
from airflow_training.api.parameters import TrainingParameters
from airflow_training.client.storage import Upload
from airflow_training.exceptions import InvalidParameters, TrainingError
from airflow_training.following.deadlines import Limits
from airflow_training.following.follow_job import Outcome
from airflow_training.operators import destination, inputs
from airflow_training.operators.asset_events import tell_outlets
from airflow_training.operators.claim import Claim
from airflow_training.operators.links import TrainingJobLink
from airflow_training.operators.masked_secrets import mask_variables
from airflow_training.operators.run import Attempt
from airflow_training.triggers.training import TrainingTrigger, error_of

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_training.operators.training import TrainingOperator


class Execution:
    """The task on a worker: once to begin, and once more to hand on the result where a trigger followed the job.

    Args:
        task: The task, its templates rendered.
        context: The context that it runs in.

    Attributes:
        claim: The job of the task, as soon as there is one.
        location: Where the model is that was handed on.
    """

    def __init__(self, task: TrainingOperator, context: Context) -> None:
        self._task = task
        self._context = context
        self.claim: Claim | None = None
        self.location: str | None = None
        self._attempt = Attempt(
            context,
            task.log,
            training_conn_id=task.training_conn_id,
            durable=task.durable,
            cancel_on_kill=task.cancel_on_kill,
        )

    def execute(self) -> str:
        """Upload, submit, and wait for the end: in the triggerer, or here."""
        with _ErrorsForAirflow():
            claim = self.claim = self._attempt.begin(self._describe)
            self._store_link(claim)
            if self._task.deferrable and _triggers_can_ask():
                self._attempt.check_not_ended(claim)
                self._defer(claim)
            with self._attempt.over_after_its_end(claim):
                return self._hand_on(claim, self._attempt.follow(claim, self._limits(claim)))

    def complete(self, event: dict[str, Any], claim: dict[str, Any]) -> str:
        """Hand on what the trigger found at the end of the job."""
        known = self.claim = Claim(**claim)
        if event["job_id"] != known.job_id:
            # SQLite gives the id of a trigger that was deleted to the next one: Airflow then takes the trigger of an
            # earlier try for that of this one, which it never starts.
            self._defer(known)
        with _ErrorsForAirflow(), self._attempt.over_after_its_end(known):
            if "error" in event:
                raise self._attempt.not_followed(known, error_of(event))
            return self._hand_on(known, Outcome.from_dict(event))

    def without_trigger(self, reason: str) -> NoReturn:
        """See to the job whose trigger died, and raise what is to be said of it."""
        with _ErrorsForAirflow():
            raise self._attempt.without_trigger(reason)

    def interrupt(self) -> None:
        """Interrupt what runs, which then cancels its job. It may be called from a signal handler."""
        self._attempt.interrupt()

    def _store_link(self, claim: Claim) -> None:
        try:
            page = self._attempt.job_page(claim)
            self._context["ti"].xcom_push(TrainingJobLink().xcom_key, page)
        except Exception as error:  # noqa: BLE001 - the job has been submitted, and is followed without a link
            self._task.log.warning("The link to the job could not be stored: %s", error)

    def _hand_on(self, claim: Claim, outcome: Outcome) -> str:
        result = self._attempt.result(claim, outcome, self._destination)
        self.location = result.location
        tell_outlets(self._context, self._task.outlets, result)
        return result.location

    def _defer(self, claim: Claim) -> NoReturn:
        task, limits = self._task, self._limits(claim).to_dict()
        task.defer(
            trigger=TrainingTrigger(claim.training_conn_id, claim.job_id, claim.version, limits, task.cancel_on_kill),
            method_name=task.execute_complete.__name__,
            kwargs={"claim": claim.to_dict()},
        )

    def _describe(self) -> tuple[TrainingParameters, list[Upload]]:
        """Find every mistake there is, before a byte is sent."""
        folder = inputs.folder_of(self._task)
        parameters: TrainingParameters | None = None
        values: dict[str, Any] = {}
        mistakes: list[str] = []
        try:
            values = inputs.given(self._task)
            mask_variables(values.get("env"))
            parameters = TrainingParameters.read(values, limited=self._task.execution_timeout is not None)
        except InvalidParameters as error:
            mistakes += error.mistakes
        mistakes += inputs.find_mistakes(values, folder)
        mistakes += destination.find_mistakes(self._destination)
        if mistakes or parameters is None:
            raise InvalidParameters(mistakes)
        return parameters, inputs.uploads(parameters, folder)

    @property
    def _destination(self) -> str | None:
        given = self._task.model_destination
        return str(given) if given else None

    def _limits(self, claim: Claim) -> Limits:
        started, timeout = self._context["ti"].start_date, self._task.execution_timeout
        return Limits(
            submitted=datetime.fromisoformat(claim.submitted or started.isoformat()),
            # Airflow does not enforce it while the task is deferred.
            deadline=started + timeout if timeout else None,
            completion_time=read_duration(claim.completion_time),
            pending_timeout=self._task.pending_timeout,
        )


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
