"""The errors of this package, one tree.

```
TrainingError
├── InvalidParameters      what was asked for cannot be a job; lists every mistake
├── InvalidConnection      the Airflow connection lacks something or contradicts itself
├── AuthenticationError    the token endpoint or the job API does not accept the credentials
├── ServiceError
│   ├── ServiceUnavailable no answer, or none but "try again", for as long as we were ready to wait
│   ├── RequestRejected    the service understood and said no; carries its status and its own words
│   └── InvalidReply       the service answered with something that is not the job API
├── StorageError           the storage of the service cannot be used
├── FollowingFailed        the job could not be followed any more; it may be well
├── TaskInterrupted        the worker was told to end; the job may be well
└── JobError               the job itself; carries its id
    ├── JobFailed          it ended, and not well
    ├── JobCanceled        somebody ended it
    ├── JobTimedOut        it took longer than it was allowed to, and we ended it
    ├── JobLost            the service does not know it any more
    └── SavedModelMissing  it ended well and left no SavedModel
```

Every message is one sentence, or two, that say what happened, with what, and what to do; none holds a
secret. Its first line ends with a code, such as `[AT-101]`, one for each thing that can go wrong:
docs/troubleshooting.md has an entry for each, and a test sees to it. A code stays what it is, whatever becomes of the
words, since people search for it; that of a message that is gone is not given again. The cause is chained. `retryable`
tells whether the same attempt may go better later: Airflow's `retries` apply to those errors only.
"""

from __future__ import annotations

from collections.abc import Sequence


def coded(message: str, *, code: str) -> str:
    """Write the code into a message that is for people, at the end of its first line: lines of a log may follow.

    >>> coded("It failed:\\nlast words", code="AT-000")
    'It failed: [AT-000]\\nlast words'
    """
    first, *more = message.split("\n")
    return "\n".join([f"{first} [{code}]", *more])


class TrainingError(Exception):
    """What every error of this package is.

    Args:
        message: What happened, with what, and what to do.
        code: Names the entry in docs/troubleshooting.md.

    Attributes:
        message: The same, without the code that the text of the error has.
        code: The code.
        retryable: Whether the same attempt, later and unchanged, may succeed.
    """

    retryable = False

    def __init__(self, message: str, *, code: str) -> None:
        self.message = message
        self.code = code
        super().__init__(coded(message, code=code))


class InvalidParameters(TrainingError):
    """What was asked for cannot be a job.

    Attributes:
        mistakes: One sentence for each mistake, all of them.
    """

    def __init__(self, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        count = "1 mistake" if len(self.mistakes) == 1 else f"{len(self.mistakes)} mistakes"
        listed = "; ".join(self.mistakes)
        super().__init__(f"The job was not submitted, its description has {count}: {listed}.", code="AT-001")


class InvalidConnection(TrainingError):
    """The Airflow connection lacks something or contradicts itself."""


class AuthenticationError(TrainingError):
    """The token endpoint or the job API does not accept the credentials."""


class ServiceError(TrainingError):
    """The job API did not do what was asked."""


class ServiceUnavailable(ServiceError):
    """No answer, or none but "try again", for as long as we were ready to wait."""

    retryable = True


class RequestRejected(ServiceError):
    """The service understood the request and refused it.

    Attributes:
        status: The HTTP status of the reply.
    """

    def __init__(self, message: str, *, status: int, code: str) -> None:
        self.status = status
        super().__init__(message, code=code)


class InvalidReply(ServiceError):
    """The service answered with something that is not the job API."""

    retryable = True


class StorageError(TrainingError):
    """The storage of the service cannot be used."""

    retryable = True


class FollowingFailed(TrainingError):
    """The job could not be followed any more; it may be well."""

    retryable = True


class TaskInterrupted(TrainingError):
    """The worker was told to end; the job may be well."""

    retryable = True


class JobError(TrainingError):
    """What went wrong lies in the job itself.

    Attributes:
        job_id: The job's id on the service.
        over: Whether nothing can come of the job any more: a retry starts a new one.
    """

    retryable = True

    def __init__(self, message: str, *, code: str, job_id: str, over: bool = True) -> None:
        self.job_id = job_id
        self.over = over
        super().__init__(message, code=code)


class JobFailed(JobError):
    """The job ended, and not well."""


class JobCanceled(JobError):
    """Somebody ended the job."""


class JobTimedOut(JobError):
    """The job took longer than it was allowed to, and we ended it, where the service could be reached."""


class JobLost(JobError):
    """The service does not know the job any more."""


class SavedModelMissing(JobError):
    """The job ended well and left no SavedModel."""
