"""The body of a submit: a job description from anybody."""

from __future__ import annotations

from pydantic import ValidationError

from airflow_training.api.description import JobDescription
from airflow_training.api.document import mistakes_in, read_document
from airflow_training.service.errors import InvalidDescription


def read_description(body: bytes) -> JobDescription:
    """Read a job description.

    Raises:
        InvalidDescription: With everything that is wrong with it.
    """
    try:
        description = JobDescription.from_wire(read_document(body))
    except ValidationError as error:
        listed = "; ".join(mistakes_in(error))
        raise InvalidDescription(f"The job description is not valid: {listed}.", status=422, code="AT-621") from None
    except ValueError as error:
        raise InvalidDescription(f"The job description {error}.", status=400, code="AT-622") from None
    if "\0" in description.execution.command:
        raise InvalidDescription(
            "The job description has a NUL character in execution.command.", status=422, code="AT-623"
        )
    try:
        description.model_dump_json()
    except ValueError:
        # JSON can write one half of a surrogate pair; no file, no database and no process can hold it.
        raise InvalidDescription(
            "The job description holds half a character (a surrogate).", status=422, code="AT-624"
        ) from None
    return description
