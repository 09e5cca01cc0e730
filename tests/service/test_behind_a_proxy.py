"""The service behind mapped ports, and behind a proxy that ends TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from airflow_training.client.client import TrainingClient
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import Upload
from airflow_training.local.process import free_port
from tests.patience import PATIENCE, wait_for
from tests.service.support import Certificates, RunningService

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.issue(tmp_path_factory.mktemp("certificates"))


@asynccontextmanager
async def relay(port: int, to: int, tls: Certificates | None = None) -> AsyncIterator[None]:
    """Pass a port on to another one of this machine, and end TLS there."""

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while content := await source.read(64 * 1024):
                target.write(content)
                await target.drain()
        target.close()

    async def serve(from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        # The client of the storage keeps its connections open.
        serving.add(asyncio.current_task())
        from_server, to_server = await asyncio.open_connection("127.0.0.1", to)
        try:
            await asyncio.gather(pump(from_client, to_server), pump(from_server, to_client))
        finally:
            for writer in (to_server, to_client):
                writer.transport.abort()

    serving: set[asyncio.Task[None] | None] = set()
    context = None
    if tls:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(tls.certificate, tls.key)
    server = await asyncio.start_server(serve, "127.0.0.1", port, ssl=context)
    try:
        yield
    finally:
        server.close()
        for task in filter(None, serving):
            task.cancel()
        await asyncio.gather(*filter(None, serving), return_exceptions=True)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_client_reaches_the_storage_under_the_address_that_the_service_was_given(
    tmp_path: Path, files: Certificates, scheme: str
) -> None:
    outside, inside, api = free_port(), free_port(), free_port()
    options = ("--storage-port", str(inside), "--storage-url", f"{scheme}://localhost:{outside}")
    service = RunningService(tmp_path, options=options)
    tls = files if scheme == "https" else None
    # The service is started and ended beside the event loop, on which its proxies run.
    with service.running():
        credentials = service.add_client("outside")
        own_port = urlsplit(service.url).port
        assert own_port
        async with relay(outside, inside, tls), relay(api, own_port, tls):
            settings = ClientSettings(
                f"{scheme}://localhost:{api}",
                credentials.client_id,
                credentials.client_secret,
                verify=str(files.authority),
                trust_env=False,
            )
            async with TrainingClient(settings) as client:
                storage = await client.storage()
                await storage.upload("jobs/a", [Upload("train.py", b"print()")])
                keys = await storage.keys("jobs/a")

    assert storage.endpoint == f"{scheme}://localhost:{outside}"
    assert keys == ["jobs/a/train.py"]


def test_an_endpoint_that_speaks_tls_is_told_without_a_scheme_as_ever(own_behind: RunningService) -> None:
    access = storage_of(own_behind)

    assert access["endpoint"] == "storage.example.com"


def storage_of(service: RunningService) -> dict[str, str]:
    client = service.add_client("any")
    grant = {"grant_type": "client_credentials"}
    token = httpx.post(f"{service.url}/oauth/token", data=grant, auth=(client.client_id, client.client_secret)).json()
    headers = {"Authorization": f"Bearer {token['access_token']}"}

    def ready() -> dict[str, str] | None:
        access: dict[str, str] = httpx.get(f"{service.url}/api/v2/storage", headers=headers, timeout=PATIENCE).json()
        return access if access["status"] == "Ready" else None

    return wait_for(ready, "the storage")


@pytest.fixture(scope="module")
def own_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    service = RunningService(
        tmp_path_factory.mktemp("behind"), options=("--storage-url", "https://storage.example.com/")
    )
    with service.running():
        yield service


@pytest.mark.parametrize("path", ["/api/v2/jobs/", "/api/v2/storage/", "/healthz/", "/docs/"])
def test_no_reply_names_scheme_and_port_of_the_services_own_socket(own_behind: RunningService, path: str) -> None:
    reply = httpx.get(f"{own_behind.url}{path}", headers={"Host": "training.example.com"})

    assert (reply.status_code, reply.headers.get("Location")) == (404, None)


def test_the_contract_names_no_address_at_all(own_behind: RunningService) -> None:
    contract = httpx.get(f"{own_behind.url}/api/v2/openapi.json")

    assert "servers" not in contract.json()
    assert "127.0.0.1" not in contract.text
    flows = contract.json()["components"]["securitySchemes"]["OAuth2"]["flows"]
    assert flows["clientCredentials"]["tokenUrl"] == "/oauth/token"


@pytest.mark.parametrize(
    "url", ["storage.example.com", "https://storage.example.com/path", "ftp://storage", "http://me:s3cr3t@storage"]
)
def test_an_address_that_no_s3_client_could_use_is_refused(tmp_path: Path, url: str) -> None:
    command = [sys.executable, "-m", "airflow_training.cli.main", "serve", "--data", str(tmp_path), "--port", "0"]

    done = subprocess.run(
        [*command, "--storage-url", url], capture_output=True, text=True, check=False, timeout=PATIENCE
    )

    assert done.returncode == 1
    assert "--storage-url must be a URL without a path, such as" in done.stderr
