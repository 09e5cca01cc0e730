"""Where the files of tenants are: in the data folder, or in an S3 store elsewhere.

Of a store elsewhere, all tenants have prefixes in one bucket, and only the service has its keys: what a tenant's
clients get are keys of the service's own endpoint, which leads them to the prefix of their tenant and nowhere else.
Stores differ in how keys can be kept to a prefix, and many cannot do it at all.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import obstore
from obstore.exceptions import BaseError

from airflow_training.service.durable_files import read_json, write_json
from airflow_training.service.errors import StorageAway
from airflow_training.service.settings import BUCKET, DataFolder
from airflow_training.service.storage.s3 import S3Settings, connect

_logger = logging.getLogger(__name__)

_STORE = "store.json"
_STORES = "stores"
# S3 knows no empty bucket in a bucket: this is in it.
_PLACEHOLDER = ".airflow-training"


class Buckets(Protocol):
    """The buckets of all tenants."""

    def make(self, tenant: str) -> None:
        """Make the bucket of a tenant, where it is missing.

        Raises:
            StorageAway: The store does not answer, or refuses.
        """

    def backend(self, tenant: str) -> dict[str, str]:
        """What rclone serves to a tenant: options of one of its backends, and `_root`, the folder in it."""

    def files(self, tenant: str, folder: str) -> dict[str, str]:
        """Where the files of a job are, as its specification says it.

        Args:
            tenant: Whose job.
            folder: Its folder in the bucket.
        """

    def remove(self, tenant: str, folder: str) -> bool:
        """Remove the folder of a job; False where that cannot be done now.

        Raises:
            StorageAway: Nor can it for any other job.
        """


def buckets_of(data: DataFolder) -> Buckets:
    """The buckets of the service that has a data folder."""
    if facts := read_json(data.storage / _STORE):
        settings = S3Settings(**facts)
        return _S3Buckets(settings, _file_of(data, settings))
    return _FolderBuckets(data)


def remember_store(data: DataFolder, settings: S3Settings | None) -> None:
    """Write down where the buckets are, for the programs that bring files there.

    Each store has a file of its own, which stays: a job brings its files to where they came from, though the service
    has another store by then.
    """
    (data.storage / _STORES).mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings:
        write_json(_file_of(data, settings), settings.to_dict())
        write_json(data.storage / _STORE, settings.to_dict())
    else:
        (data.storage / _STORE).unlink(missing_ok=True)


def _file_of(data: DataFolder, settings: S3Settings) -> Path:
    which = f"{settings.endpoint} {settings.bucket}"
    return data.storage / _STORES / f"{hashlib.sha256(which.encode()).hexdigest()[:20]}.json"


class _FolderBuckets:
    def __init__(self, data: DataFolder) -> None:
        self._data = data

    def make(self, tenant: str) -> None:
        self._data.bucket(tenant).mkdir(mode=0o700, parents=True, exist_ok=True)

    def backend(self, tenant: str) -> dict[str, str]:
        return {
            "_root": "",
            # ETags are MD5 sums. Computed anew they cost a read of every file for each listing: "hasher" remembers
            # them for as long as size and time of a file stay the same.
            "type": "hasher",
            "hashes": "md5",
            "max_age": "off",
            # Without the limit to MD5 every upload would pay for a dozen other checksums.
            "remote": f":local,hashes=md5:{self._data.tenant(tenant)}",
        }

    def files(self, tenant: str, folder: str) -> dict[str, str]:
        return {"folder": str(self._data.bucket(tenant) / folder)}

    def remove(self, tenant: str, folder: str) -> bool:
        return remove_folder(self._data.bucket(tenant) / folder)


class _S3Buckets:
    def __init__(self, settings: S3Settings, file: Path) -> None:
        self._settings = settings
        self._file = file
        # A request waits for it; the name of the store may have to be asked for twice.
        self._store = connect(settings, patience=15)

    def make(self, tenant: str) -> None:
        try:
            obstore.put(self._store, f"{self._prefix(tenant)}/{BUCKET}/{_PLACEHOLDER}", b"")
        except (BaseError, OSError) as error:
            raise self._away(error) from error

    def backend(self, tenant: str) -> dict[str, str]:
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

    def files(self, tenant: str, folder: str) -> dict[str, str]:
        return {"store": str(self._file), "prefix": f"{self._prefix(tenant)}/{BUCKET}/{folder}"}

    def remove(self, tenant: str, folder: str) -> bool:
        prefix = self.files(tenant, folder)["prefix"]
        try:
            for listed in obstore.list(self._store, prefix):
                obstore.delete(self._store, [file["path"] for file in listed])
        except (BaseError, OSError) as error:
            raise self._away(error) from error
        return True

    def _away(self, error: Exception) -> StorageAway:
        settings = self._settings
        return StorageAway(
            f"The S3 store {settings.endpoint} with the bucket {settings.bucket} cannot be used:"
            f" {str(error).splitlines()[0]}",
            code="AT-302",
        )

    def _prefix(self, tenant: str) -> str:
        return "/".join(part for part in (self._settings.prefix.strip("/"), "tenants", tenant) if part)


def remove_folder(folder: Path) -> bool:
    """Remove a folder with all that is in it; False where that cannot be done."""
    if folder.parent.resolve() != folder.parent:
        # A job put a link in the way, and what it points to is not the job's.
        _logger.warning("%s is not where it should be, and is left alone.", folder)
        return False
    if folder.is_symlink():
        folder.unlink()
        return True
    with suppress(OSError):
        # A job can have left folders that nobody may write to, its own user neither.
        for inner in (folder, *(Path(top, name) for top, names, _ in os.walk(folder) for name in names)):
            if not inner.is_symlink():
                inner.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        _logger.warning("%s cannot be removed; that is tried again.", folder)
    return not folder.exists()
