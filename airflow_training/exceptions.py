"""All errors of this package, in one tree.

```
TrainingError
├── InvalidParameters      the parameters do not describe a job; lists all errors
├── InvalidConnection      the Airflow connection is incomplete or contradictory
├── AuthenticationError    the token endpoint or the job API refuses the credentials
├── ServiceError
│   ├── ServiceUnavailable no reply, or only "try again", within the retry budget
│   ├── RequestRejected    the service rejects the request; carries its status and message
│   └── InvalidReply       the reply is not one of the job API
├── StorageError           the storage of the service cannot be used
├── FollowingFailed        the job could not be followed to its end; it may still run
├── TaskInterrupted        the task was interrupted; the job may still run
└── JobError               the job itself; carries its id
    ├── JobFailed          the job failed
    ├── JobCanceled        the job was canceled
    ├── JobTimedOut        the job exceeded its time limit and is canceled
    ├── JobLost            the service does not know the job any more
    └── ModelMissing       the job succeeded without what it was to hand on
```

Every message has one or two sentences: the cause and the fix; none has a secret in it. Its first line ends with a
code such as `[AT-101]`, one for each error: docs/troubleshooting.md has an entry for each, as a test verifies. A code
never changes its meaning, since users search for it; a code that is no longer used is not reused. The cause is chained.
`retryable` errors may not occur in a later attempt: Airflow's `retries` apply to those only.
"""

from __future__ import annotations

from collections.abc import Sequence


def coded(message: str, *, code: str) -> str:
    """Append the code to the first line of a message; lines of a log may follow.

    >>> coded("It failed:\\nlast words", code="AT-000")
    'It failed: [AT-000]\\nlast words'
    """
    first, *more = message.split("\n")
    return "\n".join([f"{first} [{code}]", *more])


class TrainingError(Exception):
    """Base class of all errors of this package.

    Args:
        message: The cause and the fix.
        code: The entry in docs/troubleshooting.md.

    Attributes:
        message: The message without the code, which `str()` appends.
        code: The code.
        retryable: Whether a later attempt without changes may succeed.
    """

    retryable = False

    def __init__(self, message: str, *, code: str) -> None:
        self.message = message
        self.code = code
        super().__init__(coded(message, code=code))


class InvalidParameters(TrainingError):
    """The parameters do not describe a job.

    Attributes:
        errors: One sentence for each error.
    """

    def __init__(self, errors: Sequence[str]) -> None:
        self.errors = tuple(errors)
        count = "1 error" if len(self.errors) == 1 else f"{len(self.errors)} errors"
        super().__init__(
            f"The job was not submitted, its description has {count}: {'; '.join(self.errors)}.", code="AT-001"
        )


class InvalidConnection(TrainingError):
    """The Airflow connection is incomplete or contradictory."""


class AuthenticationError(TrainingError):
    """The token endpoint or the job API refuses the credentials."""


class ServiceError(TrainingError):
    """A request to the job API failed."""


class ServiceUnavailable(ServiceError):
    """No reply, or only "try again", within the retry budget."""

    retryable = True


class RequestRejected(ServiceError):
    """The service rejects the request.

    Attributes:
        status: The HTTP status of the reply.
    """

    def __init__(self, message: str, *, status: int, code: str) -> None:
        self.status = status
        super().__init__(message, code=code)


class InvalidReply(ServiceError):
    """The reply is not one of the job API."""

    retryable = True


class StorageError(TrainingError):
    """The storage of the service cannot be used."""

    retryable = True


class FollowingFailed(TrainingError):
    """The job could not be followed to its end; it may still run."""

    retryable = True


class TaskInterrupted(TrainingError):
    """The task was interrupted; the job may still run."""

    retryable = True


class JobError(TrainingError):
    """An error of the job itself.

    Attributes:
        job_id: The job's id.
        over: Whether the job is over, so that a retry starts a new one.
    """

    retryable = True

    def __init__(self, message: str, *, code: str, job_id: str, over: bool = True) -> None:
        self.job_id = job_id
        self.over = over
        super().__init__(message, code=code)


class JobFailed(JobError):
    """The job failed."""


class JobCanceled(JobError):
    """The job was canceled."""


class JobTimedOut(JobError):
    """The job exceeded its time limit, and is canceled if the service is reachable."""


class JobLost(JobError):
    """The service does not know the job any more."""


class ModelMissing(JobError):
    """The job succeeded without what it was to hand on; the same script would leave none again."""

    retryable = False
