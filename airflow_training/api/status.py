"""The status of a job: the words and the object that the job API answers with."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator


class JobState(str, Enum):
    """Where a job stands. The values are the words on the wire."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"
    UNKNOWN = "UNKNOWN"
    """A word that we do not know; it is waited out."""

    @property
    def ended(self) -> bool:
        """Whether the job will not change any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED)

    @classmethod
    def read(cls, word: Any) -> JobState:
        """Read a status word, in any case and in any of the spellings that services used.

        >>> JobState.read("Successful").value
        'SUCCEEDED'
        """
        upper = str(word).strip().upper()
        try:
            return cls(_OTHER_SPELLINGS.get(upper, upper))
        except ValueError:
            return cls.UNKNOWN


_OTHER_SPELLINGS = {"SUCCESSFUL": "SUCCEEDED", "CANCELLED": "CANCELED"}


class JobStatus(BaseModel):
    """The status object: trainingClient's seven fields, and a message where the service gives a reason.

    Times are aware datetimes; a time not yet reached is None.
    """

    model_config = ConfigDict(populate_by_name=True, extra="ignore", frozen=True)

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
        # Services wrote a time not yet reached as null, as "" or as Go's zero time.
        return None if time is None or str(time) == "" or str(time).startswith("0001-01-01") else time

    @field_validator("submission_time", "start_time", "finish_time")
    @classmethod
    def _aware(cls, time: datetime | None) -> datetime | None:
        return time.replace(tzinfo=timezone.utc) if time and time.tzinfo is None else time

    @field_serializer("submission_time", "start_time", "finish_time")
    def _write_time(self, time: datetime | None) -> str | None:
        return time.astimezone(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z") if time else None

    def to_wire(self) -> dict[str, Any]:
        """The object as it travels, and as it stands in XCom."""
        return self.model_dump(by_alias=True, mode="json")

    @property
    def duration(self) -> timedelta | None:
        """From the start to the end; None where the service did not tell both."""
        return self.finish_time - self.start_time if self.start_time and self.finish_time else None
