"""The errors of the service.

```
TrainingError
├── ServiceNotStarted   the service cannot start with its settings
├── StorageUnavailable  the S3 store with the files is unavailable
├── ClientNotChanged    an OAuth2 client cannot be added, removed or changed
└── ApiError            a request is answered with an error; has its HTTP status
    └── InvalidDescription  the body of a submit is not a job, or the job can never run here

Exception
├── RayUnavailable      the Ray cluster is unavailable
└── RayRefused          the Ray cluster has rejected a request
```

Errors of Ray have no code: their text becomes part of the message of a job that waits or has failed.
"""

from __future__ import annotations

from collections.abc import Mapping

from airflow_training.exceptions import TrainingError


class ServiceNotStarted(TrainingError):
    """The service cannot start with its settings."""


class StorageUnavailable(TrainingError):
    """The S3 store with the files is unavailable."""


class RayUnavailable(Exception):
    """The Ray cluster is unavailable; the text has the reason."""


class RayRefused(Exception):
    """The Ray cluster has rejected a request; the text has the reason.

    Attributes:
        status: The HTTP status of its reply.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class ClientNotChanged(TrainingError):
    """An OAuth2 client cannot be added, removed or changed."""


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


class InvalidDescription(ApiError):
    """The body of a submit is not a job, or the job can never run here.

    Attributes:
        status: 400 if the body cannot be parsed, 422 if it is not valid.
    """

    def __init__(self, message: str, *, status: int, code: str) -> None:
        super().__init__(status, message, code=code)
