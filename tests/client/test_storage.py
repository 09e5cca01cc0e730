"""The storage's requests go the way that the connection says: its proxies, headers and certificates."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from airflow_training.api.storage import StorageAccess
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import JobStorage, TransferLog
from airflow_training.exceptions import InvalidConnection
from tests.client.faulty import FaultyService, answer

pytestmark = pytest.mark.anyio

EMPTY = answer(
    200,
    '<?xml version="1.0"?><ListBucketResult><Name>data</Name><IsTruncated>false</IsTruncated></ListBucketResult>',
    "application/xml",
)


def access(endpoint: str) -> StorageAccess:
    return StorageAccess(status="Ready", endpoint=endpoint, accessKey="key", secretKey="secret")


@pytest.fixture(autouse=True)
def no_proxies_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_a_proxy_of_the_connection_passes_on_the_storages_requests() -> None:
    proxy = FaultyService(answers=[EMPTY])
    async with proxy.running() as by_proxy:
        settings = replace(by_proxy, proxies={"http": by_proxy.base_url})
        assert await JobStorage(access("http://storage.example:9000"), settings).keys("jobs/a") == []

    assert [request.headers["Host"] for request in proxy.requests] == ["storage.example:9000"]


async def test_a_proxy_for_the_other_scheme_is_not_asked() -> None:
    storage, proxy = FaultyService(answers=[EMPTY]), FaultyService(answers=[EMPTY])
    async with storage.running() as direct, proxy.running() as by_proxy:
        settings = replace(direct, proxies={"https": by_proxy.base_url})
        assert await JobStorage(access(settings.base_url), settings).keys("jobs/a") == []

    assert (len(storage.requests), len(proxy.requests)) == (1, 0)


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_proxy_of_the_environment_counts_where_the_environment_is_trusted(
    monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    storage, proxy = FaultyService(answers=[EMPTY]), FaultyService(answers=[EMPTY])
    async with storage.running() as direct, proxy.running() as by_proxy:
        monkeypatch.setenv("http_proxy", by_proxy.base_url)
        settings = replace(direct, trust_env=trusted)
        assert await JobStorage(access(settings.base_url), settings).keys("jobs/a") == []

    assert (len(storage.requests), len(proxy.requests)) == ((0, 1) if trusted else (1, 0))


async def test_a_header_of_every_request_goes_with_those_to_a_storage_of_the_same_host() -> None:
    storage = FaultyService(answers=[EMPTY])
    async with storage.running() as plain:
        settings = replace(plain, headers={"X-Key": "k"})
        await JobStorage(access(settings.base_url), settings).keys("jobs/a")
        elsewhere = replace(settings, base_url="https://api.example")
        await JobStorage(access(settings.base_url), elsewhere).keys("jobs/a")

    assert [request.headers.get("X-Key") for request in storage.requests] == ["k", None]


@pytest.mark.parametrize("form", ["file", "folder"])
async def test_any_authority_of_a_file_or_folder_is_trusted(tmp_path: Path, form: str) -> None:
    ours, others = trustme.CA(), trustme.CA()
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ours.issue_cert("127.0.0.1").configure_cert(tls)
    if form == "file":
        verify = tmp_path / "both.pem"
        verify.write_bytes(others.cert_pem.bytes() + ours.cert_pem.bytes())
    else:
        verify = tmp_path
        (tmp_path / "a.pem").write_bytes(others.cert_pem.bytes())
        (tmp_path / "b.pem").write_bytes(ours.cert_pem.bytes())
        (tmp_path / "README").write_text("Certificates.")

    async with FaultyService(answers=[EMPTY]).running(tls) as settings:
        trusting = replace(settings, verify=str(verify))
        assert await JobStorage(access(settings.base_url), trusting).keys("jobs/a") == []


async def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    settings = ClientSettings("https://api.example", "client", "s3cr3t", verify=str(tmp_path / "none.pem"))

    with pytest.raises(InvalidConnection, match="cannot be read: No such file"):
        JobStorage(access("https://storage.example"), settings)


def transferred(sizes: list[int], seconds_each: float, *, sent: bool = True) -> list[str]:
    """What the log has of files of these sizes, each of which takes so long."""
    lines: list[str] = []
    now = 0.0
    transfer = TransferLog(lines.append, len(sizes), TransferLog.UPLOAD, clock=lambda: now)
    for number, size in enumerate(sizes):
        now += seconds_each
        transfer.bytes_done(size)
        transfer.file_done(f"part-{number}.bin", size, sent)
    transfer.end()
    return lines


def test_many_small_files_take_one_line_where_they_are_quick() -> None:
    assert transferred([10] * 20_000, 0.0001) == ["Uploaded 20,000 files (200,000 bytes)"]
    assert transferred([10] * 20_000, 0.0001, sent=False) == ["Uploaded 0 files (0 bytes), 20,000 files unchanged"]


def test_the_share_of_many_files_is_logged_from_time_to_time() -> None:
    lines = transferred([10] * 20_000, 1 / 128)  # 156 seconds
    assert len(lines) == 15 + 1
    assert lines[0] == "Uploading: 1,279 of 20,000 files, 6 %, 12,800 bytes"
    assert len(transferred([10] * 20_000, 4.0)) < 200 + 20_000 * 4 / 60


def test_a_slow_upload_of_one_file_shows_that_it_goes_on() -> None:
    lines: list[str] = []
    now = 0.0
    transfer = TransferLog(lines.append, 1, TransferLog.UPLOAD, clock=lambda: now)
    for _ in range(30):
        now += 5
        transfer.bytes_done(1_000_000)
    assert lines == [f"Uploading: 0 of 1 file, 0 %, {done},000,000 bytes" for done in (12, 24)]


def test_large_files_are_named() -> None:
    large = 12 * 1024 * 1024
    assert transferred([10, large], 0.1)[0] == "Uploaded part-1.bin (12,582,912 bytes)"
    assert transferred([10, large], 0.1, sent=False)[0] == "Unchanged in the storage: part-1.bin (12,582,912 bytes)"
