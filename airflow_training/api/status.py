"""The status of a job."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_serializer, field_validator


class JobState(str, Enum):
    """The state of a job, as on the wire."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    UNKNOWN = "UNKNOWN"
    """An unknown word: the job is followed on."""

    @property
    def ended(self) -> bool:
        """Whether the job will not change any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)

    @classmethod
    def read(cls, word: Any) -> JobState:
        """Parse a status word, in any case and any known spelling.

        >>> JobState.read("Successful").value
        'SUCCEEDED'
        """
        upper = str(word).strip().upper()
        try:
            return cls(_OTHER_SPELLINGS.get(upper, upper))
        except ValueError:
            return cls.UNKNOWN


_OTHER_SPELLINGS = {"SUCCESSFUL": "SUCCEEDED", "CANCELLED": "CANCELED"}


_EXAMPLE: dict[str, Any] = {
    "job_id": "6f2c1c5e-4f0e-5d1b-9a55-3a1c2b0e7d11",
    "name": "train-census",
    "containerID": "process-4711",
    "status": "RUNNING",
    "submissionTime": "2026-11-24T09:00:00.000000Z",
    "startTime": "2026-11-24T09:00:02.000000Z",
    "finishTime": None,
    "message": "",
}


class JobStatus(BaseModel):
    """The status object: trainingClient's seven fields, and a message with the reason.

    Times are aware datetimes, or None before that moment.
    """

    model_config = ConfigDict(
        populate_by_name=True, extra="ignore", frozen=True, json_schema_extra={"examples": [_EXAMPLE]}
    )

    job_id: str
    name: str = ""
    container_id: str = Field("", alias="containerID")
    state: JobState = Field(alias="status")
    submission_time: datetime | None = Field(None, alias="submissionTime")
    start_time: datetime | None = Field(None, alias="startTime")
    finish_time: datetime | None = Field(None, alias="finishTime")
    message: str = ""

    @field_validator("state", mode="before")
    @classmethod
    def _read_state(cls, word: Any) -> JobState:
        return JobState.read(word)

    @field_validator("name", "container_id", "message", mode="before")
    @classmethod
    def _read_text(cls, text: Any) -> Any:
        return "" if text is None else text

    @field_validator("submission_time", "start_time", "finish_time", mode="before")
    @classmethod
    def _read_time(cls, time: Any) -> Any:
        # Services write a time in the future as null, as "" or as Go's zero time.
        return None if time is None or str(time) == "" or str(time).startswith("0001-01-01") else time

    @field_validator("submission_time", "start_time", "finish_time")
    @classmethod
    def _aware(cls, time: datetime | None) -> datetime | None:
        return time.replace(tzinfo=timezone.utc) if time and time.tzinfo is None else time

    @field_serializer("submission_time", "start_time", "finish_time")
    def _write_time(self, time: datetime | None) -> str | None:
        return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z") if time else None

    def to_wire(self) -> dict[str, Any]:
        """The object as on the wire and in XCom."""
        return self.model_dump(by_alias=True, mode="json")

    @property
    def duration(self) -> timedelta | None:
        """From the start to the end; None if either is unknown."""
        return self.finish_time - self.start_time if self.start_time and self.finish_time else None


class JobList(BaseModel):
    """The jobs of a tenant."""

    model_config = ConfigDict(
        json_schema_serialization_defaults_required=True, json_schema_extra={"examples": [{"jobs": [_EXAMPLE]}]}
    )

    # A service in Go writes an empty list as null, or leaves it out.
    jobs: Annotated[list[JobStatus], BeforeValidator(lambda jobs: [] if jobs is None else jobs)] = Field(
        default_factory=list
    )
