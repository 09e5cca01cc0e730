"""The S3 endpoint."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable

import obstore
import pytest
from obstore.exceptions import BaseError

from tests.patience import wait_for
from tests.service.support import RunningService, Tenant, bucket, keys


def test_the_storage_works_once_its_status_is_ready(own_service: RunningService, own_tenant: Tenant) -> None:
    assert own_tenant.http.post("storage").status_code == 202
    store = own_tenant.storage()
    # The bucket exists, and the first request succeeds.
    assert keys(store) == []
    obstore.put(store, "a", b"1")
    obstore.delete(store, ["a"])
    assert keys(store) == []


@pytest.mark.parametrize("key", ["a", "with space/and more", "ünï/日本.csv", "a+b%20c&d='e'.txt", "deep/" * 30 + "x"])
def test_objects_with_any_key_can_be_read_back(tenant: Tenant, key: str) -> None:
    store = tenant.storage()
    put = obstore.put(store, key, b"first")
    assert put["e_tag"] == f'"{hashlib.md5(b"first", usedforsecurity=False).hexdigest()}"'
    obstore.put(store, key, b"second")
    assert keys(store) == [key]
    assert bytes(obstore.get(store, key).bytes()) == b"second"
    obstore.delete(store, [key])
    assert keys(store) == []


def test_files_that_a_job_writes_are_soon_listed(tenant: Tenant) -> None:
    store = tenant.storage()
    folder = tenant.folder("x")
    for number in range(5):
        content = os.urandom(10)
        (folder / f"{number}.bin").write_bytes(content)
        (folder / "same.bin").write_bytes(content)
        tag = f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
        there = [*(f"jobs/job-x/{i}.bin" for i in range(number + 1)), "jobs/job-x/same.bin"]
        wait_for(lambda there=there: keys(store, "jobs/job-x") == there, "the new file")  # type: ignore[misc] # mypy cannot infer a lambda with a default
        wait_for(
            lambda tag=tag: obstore.head(store, "jobs/job-x/same.bin")["e_tag"] == tag,  # type: ignore[misc]
            "the new content",
        )
        assert bytes(obstore.get(store, "jobs/job-x/same.bin").bytes()) == content
    (folder / "0.bin").unlink()
    wait_for(lambda: "jobs/job-x/0.bin" not in keys(store), "the end of a file")


def test_a_large_file_is_uploaded_in_parts_with_limited_memory(tenant: Tenant) -> None:
    store = tenant.storage()
    content = os.urandom(1024 * 1024) * 200
    obstore.put(store, "large", io.BytesIO(content), chunk_size=8 * 1024 * 1024, max_concurrency=4)
    assert hashlib.sha256(obstore.get(store, "large").bytes()).digest() == hashlib.sha256(content).digest()
    # Less than the size of the file and the baseline of the endpoint.
    assert tenant.service.storage_endpoint().memory_info().rss < 300 * 1024 * 1024


def test_the_keys_of_a_tenant_give_no_access_to_another_tenant(new_tenant: Callable[[], Tenant]) -> None:
    one, other = new_tenant(), new_tenant()
    mine, theirs = one.storage(), other.storage()
    obstore.put(mine, "file", b"mine")
    obstore.put(theirs, "file", b"theirs")
    access, foreign = (tenant.http.get("storage").json() for tenant in (one, other))
    for access_key, secret_key in (
        (access["accessKey"], foreign["secretKey"]),
        (access["accessKey"], ""),
        ("UNKNOWN", foreign["secretKey"]),
        ("UNKNOWN", ""),
    ):
        with pytest.raises(BaseError):
            keys(bucket(access["endpoint"], access_key, secret_key))
    for path in ("../other/data/file", f"../{other.name}/data/file", "../../service.db"):
        with pytest.raises((BaseError, ValueError)):
            obstore.get(mine, path)
    assert bytes(obstore.get(mine, "file").bytes()) == b"mine"


def test_the_process_list_shows_no_key(tenant: Tenant) -> None:
    tenant.storage()
    access = tenant.http.get("storage").json()
    process = tenant.service.storage_endpoint()
    words = [*process.cmdline(), *process.environ().values()]
    assert not [word for word in words if access["secretKey"] in word or access["accessKey"] in word]


def test_an_endpoint_that_is_killed_is_restarted_with_the_same_keys(
    own_service: RunningService, own_tenant: Tenant
) -> None:
    obstore.put(own_tenant.storage(), "file", b"1")
    access = own_tenant.http.get("storage").json()
    dead = own_service.storage_endpoint()
    dead.kill()
    wait_for(lambda: not dead.is_running(), "its end")
    assert keys(own_tenant.storage()) == ["file"]
    assert own_tenant.http.get("storage").json() == access
    assert own_service.storage_endpoint().pid != dead.pid
