"""An S3 store: where it is, how to prove who we are, and how long to try."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from obstore.store import S3Store

from airflow_training.service.durable_files import read_json


@dataclass(frozen=True)
class S3Settings:
    """An S3 store elsewhere that keeps the files of all tenants.

    Attributes:
        endpoint: Its address, with http or https.
        bucket: The bucket, which is there already.
        prefix: The folder in it that is the service's; empty for the whole bucket.
        region: Its region, which is signed with each request.
        access_key: The key of the service.
        secret_key: Its secret.
    """

    endpoint: str
    bucket: str
    prefix: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them, with the secret."""
        return asdict(self)


def open_store(file: Path) -> S3Store:
    """The store whose settings are in a file, as JSON: for programs that bring files there."""
    return connect(S3Settings(**(read_json(file) or {})), patience=180)


def connect(settings: S3Settings, patience: int) -> S3Store:
    """The bucket of a store; a request is tried for so many seconds."""
    return S3Store(
        settings.bucket,
        endpoint=settings.endpoint,
        access_key_id=settings.access_key,
        secret_access_key=settings.secret_key,
        region=settings.region,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "connect_timeout": "5s", "timeout": f"{patience}s"},
        retry_config={"retry_timeout": timedelta(seconds=patience)},
    )
