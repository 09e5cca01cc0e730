"""The storage of a tenant: an S3 endpoint with one bucket and its credentials."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

BUCKET = "data"


_Text = Annotated[str, BeforeValidator(lambda text: "" if text is None else text)]


class StorageAccess(BaseModel):
    """The storage of a tenant: Pending, Ready or Error.

    Attributes:
        status: The state; empty if the service has no storage yet.
        message: The reason for an error.
        endpoint: The S3 endpoint; without a scheme it speaks TLS.
        access_key: The S3 access key.
        secret_key: The S3 secret key; never shown by `repr`, like the access key.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="ignore",
        frozen=True,
        json_schema_serialization_defaults_required=True,
        json_schema_extra={
            "examples": [
                {
                    "status": "Ready",
                    "message": "",
                    "endpoint": "http://training.example:8901",
                    "accessKey": "5A1F0C7E9B3D2A468C0E",
                    "secretKey": "…",
                }
            ]
        },
    )

    status: str = ""
    message: _Text = ""
    endpoint: _Text = ""
    access_key: _Text = Field("", repr=False)
    secret_key: _Text = Field("", repr=False)

    @property
    def ready(self) -> bool:
        """Whether the storage can be used now."""
        return self.status.lower() == "ready" and bool(self.endpoint)

    @property
    def pending(self) -> bool:
        """Whether the storage is starting."""
        return self.status.lower() == "pending"

    @property
    def failed(self) -> bool:
        """Whether the storage will never be ready."""
        return self.status.lower() == "error"

    @property
    def url(self) -> str:
        """The endpoint with its scheme."""
        return self.endpoint if "://" in self.endpoint else f"https://{self.endpoint}"
