"""The service over TLS, with the S3 clients of others."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import boto3
import httpx
import pytest
import requests
import urllib3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import S3Error

from airflow_training.api.description import JobDescription
from airflow_training.api.naming import job_folder
from airflow_training.api.status import JobState
from airflow_training.client.client import TrainingClient
from airflow_training.client.follow.watcher import Watcher
from airflow_training.client.settings import ClientSettings
from airflow_training.client.storage import Upload
from tests.client.following import to_the_end
from tests.patience import PATIENCE, wait_for
from tests.service.support import Certificates, RunningService, Tenant

PART = 5 * 1024 * 1024
IN_PARTS = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates.issue(tmp_path_factory.mktemp("with a space"))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, files: Certificates) -> Iterator[RunningService]:
    """A service that speaks TLS, in place of the one that other tests share."""
    options = ("--tls-cert", str(files.certificate), "--tls-key", str(files.key))
    service = RunningService(tmp_path_factory.mktemp("service"), options=options, authority=files.authority)
    with service.running():
        yield service


@pytest.fixture
def large_file(tmp_path: Path) -> Path:
    file = tmp_path / "large"
    file.write_bytes(os.urandom(12 * 1024 * 1024))
    return file


@pytest.fixture
def minio_at(files: Certificates) -> Iterator[Callable[[dict[str, Any]], Minio]]:
    """Creates the client as its users do, with the reply of the job API."""
    with urllib3.PoolManager(ca_certs=str(files.authority)) as pool:
        yield lambda access: Minio(
            access["endpoint"], access_key=access["accessKey"], secret_key=access["secretKey"], http_client=pool
        )


@pytest.fixture
def boto3_at(files: Certificates) -> Iterator[Callable[..., Any]]:
    made = []

    def make(access: dict[str, Any], **config: Any) -> Any:
        client = boto3.client(
            "s3",
            endpoint_url=f"https://{access['endpoint']}",
            aws_access_key_id=access["accessKey"],
            aws_secret_access_key=access["secretKey"],
            region_name="us-east-1",
            verify=str(files.authority),
            config=Config(**config),
        )
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def test_the_storage_endpoint_without_a_scheme_speaks_tls_as_the_job_api_does(
    service: RunningService, tenant: Tenant, files: Certificates
) -> None:
    access = tenant.access()
    assert "://" not in access["endpoint"]
    for address in (service.url, f"https://{access['endpoint']}"):
        assert requests.get(address, verify=str(files.authority), timeout=PATIENCE).status_code < 500
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(address, timeout=PATIENCE)
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{service.url.replace('https', 'http')}/api/v2/jobs")
    plain = httpx.get(f"http://{access['endpoint']}/data")
    assert plain.status_code == 400
    assert "plain HTTP request was sent to HTTPS port" in plain.text


def test_the_url_of_the_storage_has_the_host_that_the_certificate_is_for(tenant: Tenant) -> None:
    address = tenant.access()["endpoint"]
    by_name = str(tenant.http.base_url).replace("127.0.0.1", "localhost")
    endpoint = tenant.http.get(f"{by_name}storage").raise_for_status().json()["endpoint"]
    assert endpoint == address.replace("127.0.0.1", "localhost")


def test_minio_works_with_the_storage_endpoint(
    tenant: Tenant, minio_at: Callable[[dict[str, Any]], Minio], large_file: Path, tmp_path: Path
) -> None:
    client = minio_at(tenant.access())
    assert client.bucket_exists("data")
    assert not client.bucket_exists("other")
    with pytest.raises(S3Error, match="BucketAlreadyExists"):
        client.make_bucket("data")
    client.put_object("data", "jobs/a/small.txt", BytesIO(b"small"), 5)
    client.put_object("data", "jobs/a/stream", BytesIO(large_file.read_bytes()), -1, part_size=PART)
    client.fput_object("data", "jobs/a/large", str(large_file), part_size=PART)
    client.put_object("data", "elsewhere", BytesIO(b""), 0)
    size = large_file.stat().st_size
    listed = {entry.object_name: entry.size for entry in client.list_objects("data", prefix="jobs/a/", recursive=True)}
    assert listed == {"jobs/a/large": size, "jobs/a/small.txt": 5, "jobs/a/stream": size}
    assert [entry.object_name for entry in client.list_objects("data", prefix="jobs/")] == ["jobs/a/"]
    assert read(client, "jobs/a/small.txt") == b"small"
    assert read(client, "jobs/a/stream") == large_file.read_bytes()
    client.fget_object("data", "jobs/a/large", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == large_file.read_bytes()
    assert client.stat_object("data", "jobs/a/large").size == size

    client.remove_object("data", "jobs/a/small.txt")
    gone = [DeleteObject(name) for name in ("jobs/a/large", "jobs/a/stream")]
    assert list(client.remove_objects("data", gone)) == []
    assert [entry.object_name for entry in client.list_objects("data", recursive=True)] == ["elsewhere"]


def read(client: Minio, key: str) -> bytes:
    with client.get_object("data", key) as reply:
        return reply.read()


def test_boto3_works_with_the_storage_endpoint(
    tenant: Tenant, boto3_at: Callable[..., Any], large_file: Path, tmp_path: Path
) -> None:
    client = boto3_at(tenant.access())
    client.upload_file(str(large_file), "data", "jobs/a/large", Config=IN_PARTS)
    client.upload_fileobj(BytesIO(b"small"), "data", "jobs/a/small")
    client.copy_object(Bucket="data", Key="jobs/a/copy", CopySource={"Bucket": "data", "Key": "jobs/a/small"})

    assert pages(client) == [["jobs/a/copy", "jobs/a/large"], ["jobs/a/small"]]
    assert client.head_object(Bucket="data", Key="jobs/a/large")["ContentLength"] == large_file.stat().st_size
    client.download_file("data", "jobs/a/large", str(tmp_path / "back"), Config=IN_PARTS)
    assert (tmp_path / "back").read_bytes() == large_file.read_bytes()
    # By default, boto3 signs URLs as S3 did before 2014.
    signer = boto3_at(tenant.access(), signature_version="s3v4")
    signed = signer.generate_presigned_url("get_object", Params={"Bucket": "data", "Key": "jobs/a/copy"})
    trust = str(tenant.service.authority)
    assert requests.get(signed, verify=trust, timeout=PATIENCE).content == b"small"
    assert requests.get(f"{signed}0", verify=trust, timeout=PATIENCE).status_code == 403

    gone = [{"Key": name} for name in ("jobs/a/copy", "jobs/a/large", "jobs/a/never")]
    assert "Errors" not in client.delete_objects(Bucket="data", Delete={"Objects": gone})
    assert pages(client) == [["jobs/a/small"]]


def pages(client: Any) -> list[list[str]]:
    paginator = client.get_paginator("list_objects_v2")
    replies = paginator.paginate(Bucket="data", Prefix="jobs/a/", PaginationConfig={"PageSize": 2})
    return [[entry["Key"] for entry in page["Contents"]] for page in replies]


def test_boto3_has_no_access_to_another_tenant(new_tenant: Callable[[], Tenant], boto3_at: Callable[..., Any]) -> None:
    one, other = new_tenant(), new_tenant()
    mine, theirs = one.access(), other.access()
    boto3_at(theirs).put_object(Bucket="data", Key="secret", Body=b"theirs")
    own = boto3_at(mine)

    strangers = ({"accessKey": theirs["accessKey"]}, {"secretKey": theirs["secretKey"]}, {"accessKey": "UNKNOWN"})
    for client, bucket, code in [
        *((boto3_at({**mine, **stranger}), "data", "AccessDenied") for stranger in strangers),
        *((own, bucket, "NoSuchBucket") for bucket in (other.name, "tenants")),
        (own, "..", "400|NoSuchBucket"),
    ]:
        assert_refused(client, bucket, "secret", code)
        with pytest.raises(ClientError, match=code):
            client.list_objects_v2(Bucket=bucket)
    for key in (f"../../{other.name}/data/secret", f"jobs/../../../{other.name}/data/secret", ".."):
        assert_refused(own, "data", key, "400|InvalidArgument")
        assert own.delete_objects(Bucket="data", Delete={"Objects": [{"Key": key}]})["Errors"]
        assert "Contents" not in own.list_objects_v2(Bucket="data", Prefix=key)
    assert [bucket["Name"] for bucket in own.list_buckets()["Buckets"]] == ["data"]
    assert "Contents" not in own.list_objects_v2(Bucket="data")
    (untouched,) = one.service.files.bucket(other.name).iterdir()
    assert (untouched.name, untouched.read_bytes()) == ("secret", b"theirs")


def assert_refused(client: Any, bucket: str, key: str, code: str) -> None:
    with pytest.raises(ClientError, match=code):
        client.get_object(Bucket=bucket, Key=key)
    with pytest.raises(ClientError, match=code):
        client.put_object(Bucket=bucket, Key=key, Body=b"1")
    with pytest.raises(ClientError, match=code):
        client.copy_object(Bucket="data", Key="stolen", CopySource={"Bucket": bucket, "Key": key})
    with pytest.raises(ClientError, match=code):
        client.delete_object(Bucket=bucket, Key=key)


@pytest.mark.anyio
async def test_our_own_client_follows_a_job_to_its_end(
    service: RunningService, tenant: Tenant, files: Certificates
) -> None:
    key, job_id = tenant.credentials, str(uuid4())
    settings = ClientSettings(service.url, key.client_id, key.client_secret, verify=str(files.authority))
    execution = {"command": "tr a-z A-Z < given | tee made", "completionTime": 60}
    description = JobDescription.from_wire({"name": "tiny", "execution": execution})
    folder = job_folder("tiny", job_id)

    async def connect() -> TrainingClient:
        return TrainingClient(settings)

    async with Watcher(await connect(), connect, patience=30) as watcher:
        storage = await watcher.client.storage()
        await storage.upload(folder, [Upload("given", b"hello\n")])
        await watcher.client.submit(job_id, description)
        news = await to_the_end(watcher, job_id)
        made = b"".join([piece async for piece in storage.read(f"{folder}/made")])

    assert news[-1].status.state is JobState.SUCCEEDED
    assert "HELLO" in [record.line for piece in news for record in piece.records]
    assert made == b"HELLO\n"


DESCRIPTION = """\
job:
  name: train-census
  env: [{name: EPOCHS, value: 2}]
  execution:
    image: tensorflow/tensorflow:1.6.0-gpu-py3
    command: python3 train.py --epochs=2
    completionTime: 10000
    resources: {cpus: 1, gpus: 0, memory: 1000}
"""
SCRIPT = b"import os, sys; os.mkdir('model'); open('model/saved_model.pb', 'w').write(sys.argv[1])"


def test_a_client_of_the_old_platform_works_unchanged(
    service: RunningService, files: Certificates, minio_at: Callable[[dict[str, Any]], Minio]
) -> None:
    key, job_id = service.add_client("old", "old"), str(uuid4())
    ask = partial(requests.request, verify=str(files.authority), timeout=PATIENCE)
    token_url = f"{service.url}/oauth/token?grant_type=client_credentials"
    token = ask("GET", token_url, auth=(key.client_id, key.client_secret)).json()["access_token"]
    ask = partial(ask, headers={"Authorization": f"Bearer {token}"})

    def state(path: str, *wanted: str) -> dict[str, Any] | None:
        answer: dict[str, Any] = ask("GET", f"{service.url}/api/v2/{path}").json()
        return answer if answer["status"] in wanted else None

    assert ask("POST", f"{service.url}/api/v2/storage").ok
    client = minio_at(wait_for(lambda: state("storage", "Ready"), "the storage"))
    if not client.bucket_exists("data"):
        client.make_bucket("data")
    folder = f"jobs/train-census-{job_id}"
    client.put_object("data", f"{folder}/train.py", BytesIO(SCRIPT), len(SCRIPT))
    submitted = ask("POST", f"{service.url}/api/v2/jobs/{job_id}", data=DESCRIPTION)
    assert "Content-Type" not in submitted.request.headers
    assert submitted.json()["status"] in {"PENDING", "RUNNING"}
    ended = wait_for(lambda: state(f"jobs/{job_id}", "SUCCEEDED", "FAILED"), "the end of the job")

    assert ended["status"] == "SUCCEEDED"
    assert read(client, f"{folder}/model/saved_model.pb") == b"--epochs=2"


@pytest.mark.parametrize("mistake", ["a foreign key", "no file", "one option"])
def test_invalid_certificates_are_reported_in_a_sentence(files: Certificates, tmp_path: Path, mistake: str) -> None:
    certificate, foreign = f"--tls-cert={files.certificate}", str(files.foreign_key)
    options, said = {
        "a foreign key": ((certificate, f"--tls-key={foreign}"), foreign),
        "no file": ((f"{certificate}x", f"--tls-key={files.key}"), f"{files.certificate}x"),
        "one option": ((certificate,), "--tls-cert and --tls-key"),
    }[mistake]
    command = [sys.executable, "-m", "airflow_training.cli.main", "serve", "--port", "0", "--data", str(tmp_path)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert re.search(r"\. \[AT-51[45]\]\n$", done.stderr)
    assert done.stderr.count("\n") == 1
