"""`airflow-training serve`: the embedded training service."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from airflow_training.cli.output import errors_of_the_service_in_a_sentence
from airflow_training.exceptions import TrainingError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from airflow_training.service.scheduling.resources import Amount
    from airflow_training.service.settings import RaySettings, Tls
    from airflow_training.service.storage.s3 import S3Settings

DataOption = Annotated[
    Path, typer.Option(help="Folder that the service keeps everything in.", file_okay=False, envvar="TRAINING_DATA")
]
DEFAULT_DATA = Path("~/.airflow-training")
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        help="PostgreSQL database; by the variable, its password stands in no list of processes.",
        envvar="TRAINING_DATABASE_URL",
        show_default="SQLite in the folder",
    ),
]

_TEN_YEARS = 10 * 365 * 24 * 60 * 60
# Further back there was no Unix.
MOST_DAYS = 20_000

_FOR_JOBS = "What jobs may use"
_BOUNDS = "Bounds"
_RAY = "Jobs on a Ray cluster"
_STORE = "Files in an S3 store elsewhere"


def open_database_of(data: Path, database_url: str | None) -> sessionmaker[Session]:
    """Open the database of a service, which has the folder and the URL that were given."""
    from airflow_training.service.database.engine import postgresql
    from airflow_training.service.database.models import open_database
    from airflow_training.service.settings import DataFolder

    return open_database(postgresql(database_url) if database_url else DataFolder.at(data).database_url)


def serve(
    *,
    data: DataOption = DEFAULT_DATA,
    database_url: DatabaseOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the job API; 0 takes a free one.", min=0, max=65535)] = 8900,
    storage_port: Annotated[
        int, typer.Option(help="Port of the S3 endpoint; 0 takes a free one.", min=0, max=65535)
    ] = 0,
    storage_url: Annotated[
        str | None,
        typer.Option(
            help="Address by which clients reach the S3 endpoint, such as https://storage.example.com, if a proxy or a"
            " mapped port is between.",
            show_default="its own port, and the name by which a client came",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate, PEM, with those of the authorities between: for both ports.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of the certificate, PEM.")] = None,
    token_lifetime: Annotated[
        int, typer.Option(help="Seconds that an access token is good for.", min=1, max=_TEN_YEARS)
    ] = 43200,
    access_log: Annotated[
        Path | None, typer.Option(help="File of the access log, '-' for the terminal.", show_default="in the folder")
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(help="Processors.", min=1, show_default="all", rich_help_panel=_FOR_JOBS)
    ] = None,
    memory: Annotated[
        int | None, typer.Option(help="Memory in MB.", min=1, show_default="nine tenths", rich_help_panel=_FOR_JOBS)
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(help="Graphics processors.", min=0, show_default="all", rich_help_panel=_FOR_JOBS)
    ] = None,
    runner: Annotated[
        Literal["process", "container", "ray"],
        typer.Option(
            help="What jobs run as, or on; the engine of containers is DOCKER_HOST.", rich_help_panel=_FOR_JOBS
        ),
    ] = "process",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="The cluster's dashboard, such as http://head:8265; RAY_JOB_HEADERS has headers for it, as JSON.",
            show_default="none",
            rich_help_panel=_RAY,
        ),
    ] = None,
    ray_storage_host: Annotated[
        str | None,
        typer.Option(
            help="Name by which its nodes reach the S3 endpoint.",
            show_default="this machine's address",
            rich_help_panel=_RAY,
        ),
    ] = None,
    s3_endpoint: Annotated[
        str | None,
        typer.Option(
            help="Its address; its keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            show_default="the data folder",
            rich_help_panel=_STORE,
        ),
    ] = None,
    s3_bucket: Annotated[str, typer.Option(help="Its bucket.", rich_help_panel=_STORE)] = "airflow-training",
    s3_prefix: Annotated[str, typer.Option(help="Folder in the bucket.", rich_help_panel=_STORE)] = "",
    s3_region: Annotated[str, typer.Option(help="Its region.", rich_help_panel=_STORE)] = "us-east-1",
    resource_plan: Annotated[
        list[str] | None,
        typer.Option(
            help="What a resourcePlanId stands for, such as large=cpus:8,memory:32000,gpus:1. May be repeated.",
            show_default="basic=cpus:1,memory:4096",
            rich_help_panel=_FOR_JOBS,
        ),
    ] = None,
    job_disk: Annotated[
        int | None,
        typer.Option(
            help="MB in the folder of one job.", min=1, show_default="half of the disk", rich_help_panel=_BOUNDS
        ),
    ] = None,
    job_log: Annotated[int, typer.Option(help="MB of the log of one job.", min=1, rich_help_panel=_BOUNDS)] = 1024,
    free_disk: Annotated[
        int, typer.Option(help="MB that must be free on the disk for a job to start.", min=0, rich_help_panel=_BOUNDS)
    ] = 1024,
    keep_days: Annotated[
        float | None,
        typer.Option(
            help="Days after its end that a job's status, log and folder are removed, its model too.",
            min=0,
            max=MOST_DAYS,
            show_default="never",
            rich_help_panel=_BOUNDS,
        ),
    ] = None,
) -> None:
    """Run the training service until it is interrupted; jobs that run then go on."""
    with errors_of_the_service_in_a_sentence():
        from airflow_training.service import server
        from airflow_training.service.settings import RunnerName, ServiceSettings

        settings = ServiceSettings(
            data.expanduser(),
            host,
            port,
            storage_port,
            database_url=database_url,
            storage_url=_storage_url(storage_url),
            tls=_tls(tls_cert, tls_key),
            token_lifetime=token_lifetime,
            access_log=access_log,
            cpus=cpus,
            memory=memory,
            gpus=gpus,
            runner=RunnerName(runner),
            ray=_ray(runner, ray_address, ray_storage_host),
            s3=_s3(s3_endpoint, s3_bucket, s3_prefix, s3_region),
            plans=_plans(resource_plan or ()),
            free_disk=free_disk,
            job_disk=job_disk,
            job_log=job_log,
            keep_days=keep_days,
        )
        server.serve(
            settings, lambda url: typer.echo(f"Training service ready at {url} (data in {settings.data.resolve()})")
        )


def _storage_url(url: str | None) -> str | None:
    # A path would be part of what S3 clients sign.
    if url and not re.fullmatch(r"https?://([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?/?", url):
        raise TrainingError(
            f"--storage-url takes an address such as https://storage.example.com:8901, without a path, and not"
            f" {url!r}.",
            code="AT-516",
        )
    return url.rstrip("/") if url else None


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    from airflow_training.service.settings import Tls

    if certificate and key:
        return Tls(certificate.resolve(), key.resolve())
    if certificate or key:
        raise TrainingError("TLS takes both: --tls-cert and --tls-key.", code="AT-514")
    return None


def _ray(runner: str, address: str | None, storage_host: str | None) -> RaySettings | None:
    """The cluster, with the headers that Ray's own commands take from the same variable."""
    from airflow_training.service.settings import RaySettings

    if (runner == "ray") != bool(address):
        raise TrainingError("--runner ray and --ray-address go together: give both, or neither.", code="AT-541")
    if not address:
        return None
    if not re.fullmatch(r"https?://([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?/?", address):
        raise TrainingError(
            f"--ray-address takes an address such as http://head:8265, and not {address!r}.", code="AT-542"
        )
    try:
        headers = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}")
        return RaySettings(address, storage_host, {str(name): str(value) for name, value in headers.items()})
    except (ValueError, AttributeError):
        # Neither the cause nor the text is shown: there may be a password in it.
        raise TrainingError(
            'RAY_JOB_HEADERS is no JSON object of names and values, such as {"X-Key": "…"}.', code="AT-543"
        ) from None


def _s3(endpoint: str | None, bucket: str, prefix: str, region: str) -> S3Settings | None:
    """The store, with the keys that other S3 tools take from the same variables."""
    from airflow_training.service.storage.s3 import S3Settings

    if not endpoint:
        return None
    if not re.fullmatch(r"https?://[\w.-]+(:\d{1,5})?(/[\w./~-]*)?|https?://\[[0-9a-fA-F:]+\](:\d{1,5})?", endpoint):
        raise TrainingError(
            f"--s3-endpoint takes an address with http:// or https://, and not {endpoint!r}.", code="AT-551"
        )
    if os.environ.get("AWS_SESSION_TOKEN"):
        raise TrainingError(
            "--s3-endpoint takes keys that last, and AWS_SESSION_TOKEN is set: jobs outlive its keys.", code="AT-552"
        )
    if not bucket:
        raise TrainingError("--s3-bucket is empty: name a bucket of the store.", code="AT-553")
    keys = [os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    if not all(keys):
        raise TrainingError(
            "--s3-endpoint takes its keys from the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            code="AT-554",
        )
    return S3Settings(endpoint, bucket, prefix, region, *keys)


def _plans(texts: Sequence[str]) -> Mapping[str, Amount]:
    from airflow_training.service.scheduling.resources import read_plan
    from airflow_training.service.settings import BASIC_PLANS

    return {**BASIC_PLANS, **dict(map(read_plan, texts))}
