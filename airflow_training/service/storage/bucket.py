"""The buckets of the tenants: in the data folder, or in an external S3 store.

In an external store, all tenants have prefixes of one bucket, and only the service has its keys. The clients of a
tenant get keys of the service's own endpoint, which serves them the prefix of their tenant only: stores restrict keys
to a prefix in different ways, and many cannot do it at all.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import BaseError

from airflow_training.api.storage import BUCKET
from airflow_training.service.atomic_files import read_json, write_json
from airflow_training.service.errors import StorageUnavailable
from airflow_training.service.settings import DataFolder
from airflow_training.service.storage.job_files import LocalFiles, S3Files
from airflow_training.service.storage.s3 import S3Settings, connect

_STORE = "store.json"
_STORES = "stores"
# S3 has no empty folders: this object makes the tenant's bucket exist.
_PLACEHOLDER = ".airflow-training"


class Buckets(Protocol):
    """The buckets of all tenants."""

    def create(self, tenant: str) -> None:
        """Create the bucket of a tenant if it does not exist.

        Raises:
            StorageUnavailable: The store does not respond, or refuses.
        """

    def rclone_backend(self, tenant: str) -> dict[str, str]:
        """The options of the rclone backend that serves a tenant, and `_root`, the folder in it."""

    def location(self, tenant: str, folder: str) -> dict[str, str]:
        """The location of a job's files, for `open_location`: a `folder`, or a `store` file and a `prefix`.

        Args:
            tenant: The tenant.
            folder: The job's folder in the bucket.
        """

    def remove(self, tenant: str, folder: str) -> bool:
        """Remove the folder of a job; False if that is not possible now.

        Raises:
            StorageUnavailable: The store does not respond, or refuses.
        """


def open_buckets(data: DataFolder) -> Buckets:
    """The buckets of the service with this data folder."""
    if facts := read_json(data.storage / _STORE):
        settings = S3Settings(**facts)
        return _S3Buckets(settings, _settings_file(data, settings))
    return _LocalBuckets(data)


def save_store(data: DataFolder, settings: S3Settings | None) -> None:
    """Save where the buckets are, for the processes that copy the files of jobs.

    The settings of each store are kept: a job copies its files back to where they came from, even if the service uses
    another store by then.
    """
    (data.storage / _STORES).mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings:
        write_json(_settings_file(data, settings), asdict(settings))
        write_json(data.storage / _STORE, asdict(settings))
    else:
        (data.storage / _STORE).unlink(missing_ok=True)


def _settings_file(data: DataFolder, settings: S3Settings) -> Path:
    store = f"{settings.endpoint} {settings.bucket}"
    return data.storage / _STORES / f"{hashlib.sha256(store.encode()).hexdigest()[:20]}.json"


class _LocalBuckets:
    def __init__(self, data: DataFolder) -> None:
        self._data = data

    def create(self, tenant: str) -> None:
        self._data.bucket(tenant).mkdir(mode=0o700, parents=True, exist_ok=True)

    def rclone_backend(self, tenant: str) -> dict[str, str]:
        return {
            "_root": "",
            # ETags are MD5 sums. "hasher" caches them for as long as size and time of a file stay the same; without
            # it, each listing reads every file.
            "type": "hasher",
            "hashes": "md5",
            "max_age": "off",
            # Without the limit to MD5, every upload computes a dozen other checksums.
            "remote": f":local,hashes=md5:{self._data.tenant(tenant)}",
        }

    def location(self, tenant: str, folder: str) -> dict[str, str]:
        return {"folder": str(self._data.bucket(tenant) / folder)}

    def remove(self, tenant: str, folder: str) -> bool:
        return LocalFiles(self._data.bucket(tenant) / folder).remove()


class _S3Buckets:
    def __init__(self, settings: S3Settings, file: Path) -> None:
        self._settings = settings
        self._file = file
        # A request of a client waits for it; name resolution may need a second try.
        self._store = connect(settings, timeout=15)

    def create(self, tenant: str) -> None:
        try:
            obstore.put(self._store, f"{self._prefix(tenant)}/{BUCKET}/{_PLACEHOLDER}", b"")
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def rclone_backend(self, tenant: str) -> dict[str, str]:
        settings = self._settings
        return {
            "_root": f"{settings.bucket}/{self._prefix(tenant)}",
            "type": "s3",
            "provider": "Other",
            "endpoint": settings.endpoint,
            "region": settings.region,
            "access_key_id": settings.access_key,
            "secret_access_key": settings.secret_key,
            "force_path_style": "true",
            "list_version": "2",
            "no_check_bucket": "true",
            # A file has ten thousand parts at most: 156 GiB.
            "chunk_size": "16Mi",
        }

    def location(self, tenant: str, folder: str) -> dict[str, str]:
        return {"store": str(self._file), "prefix": self._folder(tenant, folder)}

    def remove(self, tenant: str, folder: str) -> bool:
        try:
            return S3Files(self._store, self._folder(tenant, folder)).remove()
        except (BaseError, OSError) as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> StorageUnavailable:
        settings = self._settings
        return StorageUnavailable(
            f"The S3 store {settings.endpoint} with the bucket {settings.bucket} cannot be used:"
            f" {str(error).splitlines()[0]}",
            code="AT-302",
        )

    def _folder(self, tenant: str, folder: str) -> str:
        return f"{self._prefix(tenant)}/{BUCKET}/{folder}"

    def _prefix(self, tenant: str) -> str:
        return "/".join(part for part in (self._settings.prefix.strip("/"), "tenants", tenant) if part)
