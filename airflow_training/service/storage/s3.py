"""An S3 store outside of the service: settings and connection."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta

from obstore.store import S3Store


@dataclass(frozen=True)
class S3Settings:
    """An external S3 store that keeps the files of all tenants.

    Attributes:
        endpoint: Its URL, with http or https.
        bucket: The bucket, which must exist.
        prefix: The prefix of the service in it; empty for the whole bucket.
        region: The region, which is signed with each request.
        access_key: The access key of the service.
        secret_key: The secret key of the service.
    """

    endpoint: str
    bucket: str
    prefix: str
    region: str
    access_key: str
    secret_key: str = field(repr=False)


def connect(settings: S3Settings, timeout: int) -> S3Store:
    """Connect to the bucket of a store; a request, with its retries, may take `timeout` seconds."""
    return S3Store(
        settings.bucket,
        endpoint=settings.endpoint,
        access_key_id=settings.access_key,
        secret_access_key=settings.secret_key,
        region=settings.region,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "connect_timeout": "5s", "timeout": f"{timeout}s"},
        retry_config={"retry_timeout": timedelta(seconds=timeout)},
    )
