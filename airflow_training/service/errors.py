"""The errors of the service: what its operator and its clients are told.

```
TrainingError
├── ServiceNotStarted  the service cannot serve as it was asked to
├── StorageAway        the S3 store that keeps the files cannot be used now
├── ClientNotChanged   an OAuth2 client cannot be added, removed or changed as it was asked
├── InvalidDescription the body of a submit is not a job, or not one that can run here
└── ApiError           a request is answered with an error; carries its HTTP status

Exception
├── RayAway            the Ray cluster does not answer, or not now
└── RayRefused         the Ray cluster does not take what it was asked for
```

What Ray says has no code: it is told as a part of what a job waits for, or failed of.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_training.exceptions import TrainingError


class ServiceNotStarted(TrainingError):
    """The service cannot serve as it was asked to."""


class StorageAway(TrainingError):
    """The S3 store that keeps the files cannot be used now."""


class RayAway(Exception):
    """Ray does not answer, or not now; the text says why."""


class RayRefused(Exception):
    """Ray does not take what it was asked for; the text says why.

    Attributes:
        status: The HTTP status of its answer.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ClientNotChanged(TrainingError):
    """An OAuth2 client cannot be added, removed or changed as it was asked."""


class InvalidDescription(TrainingError):
    """The body of a submit is not a job, or not one that can run here.

    Attributes:
        status: 400 where it cannot be read, 422 where it was read and is no job.
    """

    def __init__(self, message: str, *, status: int, code: str) -> None:
        self.status = status
        super().__init__(message, code=code)


class ApiError(TrainingError):
    """A request is answered with an error.

    Attributes:
        status: The HTTP status of the reply.
        headers: Headers of the reply.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None, *, code: str) -> None:
        self.status = status
        self.headers = dict(headers or {})
        super().__init__(message, code=code)
