"""Requests of the job API when the service is not at its best."""

from __future__ import annotations

import asyncio
import ssl
import traceback
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from airflow_training.api.description import JobDescription
from airflow_training.client.auth import TokenSource, describe
from airflow_training.client.client import TrainingClient
from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings
from airflow_training.exceptions import (
    AuthenticationError,
    InvalidConnection,
    InvalidReply,
    RequestRejected,
    ServiceUnavailable,
)
from tests.client.faulty import Answer, FaultyService, answer, token

pytestmark = pytest.mark.anyio
QUICK = RetryPolicy(budget=20, first=0.01)
IMPATIENT = RetryPolicy(budget=0.5, first=0.01)
JOBS = answer(200, '{"jobs": []}')


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_a_passing_fault_is_not_noticed(status: int) -> None:
    faulty = FaultyService(answers=[answer(status), answer(status, Retry_After="0"), JOBS])
    async with faulty.running() as settings, TrainingClient(settings, QUICK) as client:
        assert await client.jobs() == []

    assert len(faulty.requests) == 3


async def test_a_lasting_fault_is_told_in_the_services_words() -> None:
    down = answer(503, '{"error": {"code": "503", "message": "Down for\\nmaintenance"}}')
    async with FaultyService(answers=[down]).running() as settings, TrainingClient(settings, IMPATIENT) as client:
        with pytest.raises(ServiceUnavailable, match=r"it returned 503, Down for maintenance\. Check that it runs"):
            await client.jobs()


async def test_a_service_that_is_not_there_is_named_with_what_to_check(unused_port: int) -> None:
    async with FaultyService().running() as settings:
        elsewhere = ClientSettings(
            f"http://127.0.0.1:{unused_port}", "client", "s3cr3t", token_url=settings.token_endpoint
        )
        async with TrainingClient(elsewhere, IMPATIENT) as client:
            with pytest.raises(ServiceUnavailable, match=r"did not answer GET http.*/jobs: .*[Cc]onnect.*Check that"):
                await client.jobs()


@pytest.mark.parametrize("status", [400, 403, 404, 409, 412, 422])
async def test_a_refusal_is_final_and_told_in_the_services_words(status: int) -> None:
    faulty = FaultyService(answers=[answer(status, '{"error": {"code": "1", "message": "No tenant found"}}')])
    async with faulty.running() as settings, TrainingClient(settings, QUICK) as client:
        with pytest.raises(RequestRejected, match=rf"with {status}: No tenant found\.") as raised:
            await client.jobs()

    assert raised.value.status == status
    assert len(faulty.requests) == 1


async def test_a_long_refusal_is_cut_and_keeps_its_code() -> None:
    faulty = FaultyService(answers=[answer(422, f'{{"error": {{"message": "{"a mistake; " * 100}[AT-621]"}}}}')])
    async with faulty.running() as settings, TrainingClient(settings, QUICK) as client:
        with pytest.raises(RequestRejected, match=r"with 422: (a mistake; )+a m… \[AT-621\]\. \[AT-211\]$"):
            await client.jobs()


async def test_a_refused_token_is_renewed_once() -> None:
    faulty = FaultyService(answers=[answer(401), JOBS], tokens=[token("old"), token("new")])
    async with faulty.running() as settings, TrainingClient(settings, QUICK) as client:
        assert await client.jobs() == []

    assert [request.headers["Authorization"] for request in faulty.requests] == ["Bearer old", "Bearer new"]


async def test_a_refused_fresh_token_is_final() -> None:
    faulty = FaultyService(answers=[answer(401, '{"error": {"code": "401", "message": "Unknown issuer"}}')])
    async with faulty.running() as settings, TrainingClient(settings, QUICK) as client:
        with pytest.raises(AuthenticationError, match=r"refused a fresh token .*: Unknown issuer.*oauth_token_url"):
            await client.jobs()

    assert len(faulty.requests) == 2
    assert len(faulty.token_requests) == 2


@pytest.mark.parametrize(
    "page",
    [
        answer(200, "<html>Welcome</html>", "text/html"),
        answer(200, '{"jobs": ['),
        answer(200, '{"jobs": 5}'),
        answer(200, '{"jobs": [{"job_id": null}]}'),
        answer(200, "[]"),
        answer(200, ""),
    ],
)
async def test_what_is_not_the_job_api_is_called_so(page: Answer) -> None:
    async with FaultyService(answers=[page]).running() as settings, TrainingClient(settings, IMPATIENT) as client:
        with pytest.raises(InvalidReply, match=r"not the job API.*Check host, schema and port"):
            await client.jobs()


@pytest.mark.parametrize("page", [answer(200, "<html>Maintenance</html>", "text/html"), answer(200, '{"jobs": [')])
async def test_a_page_of_somebody_elses_that_passes_is_not_noticed(page: Answer) -> None:
    faulty = FaultyService(answers=[page, page, JOBS])
    async with faulty.running() as settings, TrainingClient(settings, QUICK) as client:
        assert await client.jobs() == []


async def test_a_request_is_made_twice_though_the_first_took_all_the_time() -> None:
    faulty = FaultyService(answers=[answer(503), JOBS])
    no_time = RetryPolicy(budget=0, first=0.01)
    async with faulty.running() as settings, TrainingClient(settings, no_time) as client:
        assert await client.jobs() == []


@pytest.mark.parametrize("own_token", [True, False])
async def test_a_proxy_that_refuses_is_named_without_its_password(own_token: bool) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    proxy = await asyncio.start_server(refuse, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    async with proxy, FaultyService().running() as settings:
        behind = replace(
            settings,
            base_url="https://training.example",
            token_url=settings.token_endpoint if own_token else "https://tokens.example/oauth/token",
            proxies={"https": f"http://user:hunter2@127.0.0.1:{port}"},
        )
        async with TrainingClient(behind, IMPATIENT) as client:
            with pytest.raises(ServiceUnavailable, match="407") as caught:
                await client.jobs()

    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("secret", ["user:hunter2", "user:hunt@er2", "hunter2"])
def test_what_goes_wrong_on_the_wire_is_told_without_a_login(secret: str) -> None:
    said = describe(OSError(f"no way through 'http://{secret}@proxy:3128/a@b'"))

    assert said == "no way through 'http://proxy:3128/a@b'"


@pytest.mark.parametrize("body", ['{"jobs": null}', "{}"])
async def test_no_jobs_may_be_written_as_null_or_left_out(body: str) -> None:
    none = FaultyService(answers=[answer(200, body)])
    async with none.running() as settings, TrainingClient(settings, QUICK) as client:
        assert await client.jobs() == []


async def test_an_address_that_leads_elsewhere_is_told_and_gets_no_token() -> None:
    async with FaultyService().running() as elsewhere:
        moved = FaultyService(answers=[answer(307, Location=f"{elsewhere.base_url}/api/v2/jobs")])
        async with moved.running() as settings, TrainingClient(settings, QUICK) as client:
            with pytest.raises(RequestRejected, match=rf" to {elsewhere.base_url}/api/v2/jobs: put the intended URL"):
                await client.jobs()


async def test_a_status_that_nobody_knows_is_a_refusal() -> None:
    odd = FaultyService(answers=[answer(499, "")])
    async with odd.running() as settings, TrainingClient(settings, QUICK) as client:
        with pytest.raises(RequestRejected, match=r"with 499: no reason given\."):
            await client.jobs()


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
async def test_a_private_certificate_authority_is_trusted_by_its_file(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    faulty = FaultyService()
    async with faulty.running(tls) as settings:
        assert settings.base_url.startswith("https://")
        for verify in (str(tmp_path / "ca.pem"), False):
            async with TrainingClient(replace(settings, verify=verify), QUICK) as client:
                assert await client.jobs() == []
        async with TrainingClient(settings, IMPATIENT) as client:
            with pytest.raises(ServiceUnavailable, match="certificate verify failed"):
                await client.jobs()

    assert len(faulty.requests) == 2


async def test_certificates_that_are_not_there_are_named(tmp_path: Path) -> None:
    settings = ClientSettings("https://127.0.0.1", "client", "s3cr3t")
    nowhere = str(tmp_path / "none.pem")
    said = "`verify` or `cert` of the connection cannot be read: "
    for broken in (replace(settings, verify=nowhere), replace(settings, cert=nowhere)):
        with pytest.raises(InvalidConnection, match=said):
            await TrainingClient(broken).__aenter__()
        with pytest.raises(InvalidConnection, match=said):
            TokenSource(broken).token()


@pytest.mark.parametrize("body", ["", "{}", '{"status": "PENDING"}'])
async def test_a_submit_is_accepted_whatever_the_reply_tells_beside_it(body: str) -> None:
    description = JobDescription.from_wire({"name": "a", "execution": {"command": "true", "completionTime": 1}})
    accepts = FaultyService(answers=[answer(202, body)])
    async with accepts.running() as settings, TrainingClient(settings, QUICK) as client:
        status = await client.submit("1", description)

    assert (status.job_id, status.name, status.state.value) == ("1", "a", "PENDING")


GONE = '{"error": {"code": "404", "message": "No such job"}}'


@pytest.mark.parametrize(
    ("reply", "new"),
    [
        (answer(206, "cdef", Content_Range="bytes 2-5/6"), b"cdef"),
        (answer(206, "bcdef", Content_Range="bytes 1-5/6"), b"cdef"),
        (answer(206, "f", Content_Range="bytes 5-5/6"), b""),
        (answer(206, "cdef"), b"cdef"),
        (answer(200, "abcdef"), b"cdef"),
        (answer(200, "a"), b""),
        (answer(416, "nothing"), b""),
        (answer(404, GONE), b""),
    ],
)
async def test_of_a_log_only_what_is_new_is_taken(reply: Answer, new: bytes) -> None:
    async with FaultyService(answers=[reply]).running() as settings, TrainingClient(settings, QUICK) as client:
        assert (await client.log("1", 2)).content == new


@pytest.mark.parametrize(
    "fault",
    [answer(404, "default backend - 404"), answer(206, "cd", Content_Range="bytes 2-5/6")],
    ids=["gateway", "half"],
)
async def test_a_log_reply_that_is_not_the_services_or_not_whole_is_asked_for_again(fault: Answer) -> None:
    faulty = FaultyService(answers=[fault, answer(206, "cdef", Content_Range="bytes 2-5/6")])
    async with faulty.running() as settings, TrainingClient(settings, QUICK) as client:
        assert (await client.log("1", 2)).content == b"cdef"


async def test_a_gateway_that_finds_no_service_does_not_lose_or_cancel_a_job() -> None:
    nobody = answer(404, "<html>default backend</html>", Content_Type="text/html")
    running = answer(200, '{"job_id": "1", "name": "a", "status": "RUNNING"}')
    faulty = FaultyService(answers=[nobody, running, nobody, answer(404, GONE)])
    async with faulty.running() as settings, TrainingClient(settings, QUICK) as client:
        assert (await client.status("1")).state.value == "RUNNING"
        assert not await client.cancel("1")

    assert [request.method for request in faulty.requests] == ["GET", "GET", "DELETE", "DELETE"]


async def test_a_lost_reply_to_a_submit_on_a_service_that_knows_no_repeats() -> None:
    """The old service calls the repeated submit a conflict; the job is there, so it is no error."""
    known = answer(200, '{"job_id": "1", "name": "a", "status": "RUNNING"}')
    description = JobDescription.from_wire({"name": "a", "execution": {"command": "true", "completionTime": 1}})
    faulty = FaultyService(answers=[answer(502), answer(409), known])
    async with faulty.running() as settings, TrainingClient(settings, QUICK) as client:
        status = await client.submit("1", description)

    assert status.state.value == "RUNNING"
    assert [request.method for request in faulty.requests] == ["POST", "POST", "GET"]
