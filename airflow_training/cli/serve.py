"""`airflow-training serve`: the options of the training service, and their validation."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from airflow_training.cli.output import print_service_errors
from airflow_training.exceptions import TrainingError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from airflow_training.service.settings import RaySettings, Tls
    from airflow_training.service.storage.s3 import S3Settings

DataOption = Annotated[Path, typer.Option(help="Data folder of the service.", file_okay=False, envvar="TRAINING_DATA")]
DEFAULT_DATA = Path("~/.airflow-training")
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        help="URL of a PostgreSQL database; in the variable, its password is not visible in the process list.",
        envvar="TRAINING_DATABASE_URL",
        show_default="SQLite in the data folder",
    ),
]

_TEN_YEARS = 10 * 365 * 24 * 60 * 60
# 55 years: older dates would be before 1970.
MAX_DAYS = 20_000

_BASIC_PLAN = "basic=cpus:1,memory:4096"
"""The resource plan that clients of the previous platform name by default."""

_FOR_JOBS = "Resources for jobs"
_LIMITS = "Limits"
_RAY = "Jobs on a Ray cluster"
_STORE = "Files in an external S3 store"


def open_database_of(data: Path, database_url: str | None) -> sessionmaker[Session]:
    """Open the database of a service."""
    from airflow_training.service.database.engine import postgresql_url
    from airflow_training.service.database.models import open_database
    from airflow_training.service.settings import DataFolder

    return open_database(postgresql_url(database_url) if database_url else DataFolder.at(data).database_url)


def serve(
    *,
    data: DataOption = DEFAULT_DATA,
    database_url: DatabaseOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the job API; 0 for a free one.", min=0, max=65535)] = 8900,
    storage_port: Annotated[int, typer.Option(help="Port of the S3 endpoint; 0 for a free one.", min=0, max=65535)] = 0,
    storage_url: Annotated[
        str | None,
        typer.Option(
            help="URL at which clients reach the S3 endpoint behind a proxy or a mapped port, such as"
            " https://storage.example.com.",
            show_default="its own port, at the host name that the client used",
        ),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file with the certificate chain, for both ports.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file with the private key.")] = None,
    token_lifetime: Annotated[
        int, typer.Option(help="Lifetime of an access token in seconds.", min=1, max=_TEN_YEARS)
    ] = 43200,
    access_log: Annotated[
        Path | None,
        typer.Option(help="File of the access log, '-' for the standard output.", show_default="in the data folder"),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(help="CPUs.", min=1, show_default="all", rich_help_panel=_FOR_JOBS)
    ] = None,
    memory: Annotated[
        int | None, typer.Option(help="Memory in MB.", min=1, show_default="90 %", rich_help_panel=_FOR_JOBS)
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(help="GPUs.", min=0, show_default="all", rich_help_panel=_FOR_JOBS)
    ] = None,
    runner: Annotated[
        Literal["process", "container", "ray"],
        typer.Option(help="How jobs run. Containers run on the engine at DOCKER_HOST.", rich_help_panel=_FOR_JOBS),
    ] = "process",
    ray_address: Annotated[
        str | None,
        typer.Option(
            help="URL of the dashboard, such as http://head:8265; RAY_JOB_HEADERS has HTTP headers for it, as JSON.",
            show_default="none",
            rich_help_panel=_RAY,
        ),
    ] = None,
    ray_storage_host: Annotated[
        str | None,
        typer.Option(
            help="Host name at which its nodes reach the S3 endpoint.",
            show_default="this machine's address",
            rich_help_panel=_RAY,
        ),
    ] = None,
    s3_endpoint: Annotated[
        str | None,
        typer.Option(
            help="URL of the store; its keys are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            show_default="the data folder",
            rich_help_panel=_STORE,
        ),
    ] = None,
    s3_bucket: Annotated[str, typer.Option(help="Bucket.", rich_help_panel=_STORE)] = "airflow-training",
    s3_prefix: Annotated[str, typer.Option(help="Folder in the bucket.", rich_help_panel=_STORE)] = "",
    s3_region: Annotated[str, typer.Option(help="Region.", rich_help_panel=_STORE)] = "us-east-1",
    resource_plan: Annotated[
        list[str] | None,
        typer.Option(
            help="Meaning of a resourcePlanId, such as large=cpus:8,memory:32000,gpus:1. Can be repeated.",
            show_default=_BASIC_PLAN,
            rich_help_panel=_FOR_JOBS,
        ),
    ] = None,
    job_disk: Annotated[
        int | None,
        typer.Option(
            help="Maximum size of a job's folder in MB.",
            min=1,
            show_default="half of the disk",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
    job_log: Annotated[
        int, typer.Option(help="Maximum size of a job's log in MB.", min=1, rich_help_panel=_LIMITS)
    ] = 1024,
    free_disk: Annotated[
        int,
        typer.Option(help="Free disk space in MB required to start a job.", min=0, rich_help_panel=_LIMITS),
    ] = 1024,
    keep_days: Annotated[
        float | None,
        typer.Option(
            help="Days to keep a job after its end: its status, its log, and its folder with the model.",
            min=0,
            max=MAX_DAYS,
            show_default="forever",
            rich_help_panel=_LIMITS,
        ),
    ] = None,
) -> None:
    """Run the training service until it is interrupted; running jobs continue."""
    with print_service_errors():
        from airflow_training.service import server
        from airflow_training.service.scheduling.resources import parse_plan
        from airflow_training.service.settings import ServiceSettings

        settings = ServiceSettings(
            data=data.expanduser(),
            database_url=database_url,
            host=host,
            port=port,
            storage_port=storage_port,
            storage_url=_storage_url(storage_url),
            tls=_tls(tls_cert, tls_key),
            token_lifetime=token_lifetime,
            access_log=access_log,
            cpus=cpus,
            memory=memory,
            gpus=gpus,
            runner=runner,
            ray=_ray(runner, ray_address, ray_storage_host),
            s3=_s3(s3_endpoint, s3_bucket, s3_prefix, s3_region),
            plans=dict(map(parse_plan, [_BASIC_PLAN, *(resource_plan or ())])),
            free_disk=free_disk,
            job_disk=job_disk,
            job_log=job_log,
            keep_days=keep_days,
        )
        server.serve(
            settings, lambda url: typer.echo(f"Training service ready at {url} (data in {settings.data.resolve()})")
        )


def _storage_url(url: str | None) -> str | None:
    # S3 clients sign the path, and the endpoint does not know about it.
    if url and not re.fullmatch(r"https?://([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?/?", url):
        raise TrainingError(
            f"--storage-url must be a URL without a path, such as https://storage.example.com:8901, not {url!r}.",
            code="AT-516",
        )
    return url.rstrip("/") if url else None


def _tls(certificate: Path | None, key: Path | None) -> Tls | None:
    from airflow_training.service.settings import Tls

    if certificate and key:
        return Tls(certificate.resolve(), key.resolve())
    if certificate or key:
        raise TrainingError("TLS needs both --tls-cert and --tls-key.", code="AT-514")
    return None


def _ray(runner: str, address: str | None, storage_host: str | None) -> RaySettings | None:
    """The cluster; Ray's own commands read the headers from the same variable."""
    from airflow_training.service.settings import RaySettings

    if (runner == "ray") != bool(address):
        raise TrainingError("--runner ray and --ray-address go together: give both, or neither.", code="AT-541")
    if not address:
        return None
    if not re.fullmatch(r"https?://([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?/?", address):
        raise TrainingError(f"--ray-address must be a URL such as http://head:8265, not {address!r}.", code="AT-542")
    try:
        headers = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}")
        return RaySettings(address, storage_host, {str(name): str(value) for name, value in headers.items()})
    except (ValueError, AttributeError):
        # Neither the cause nor the value is shown: it may contain a password.
        raise TrainingError(
            'RAY_JOB_HEADERS must be a JSON object of names and values, such as {"X-Key": "…"}.', code="AT-543"
        ) from None


def _s3(endpoint: str | None, bucket: str, prefix: str, region: str) -> S3Settings | None:
    """The store; other S3 tools read the keys from the same variables."""
    from airflow_training.service.storage.s3 import S3Settings

    if not endpoint:
        return None
    if not re.fullmatch(r"https?://[\w.-]+(:\d{1,5})?(/[\w./~-]*)?|https?://\[[0-9a-fA-F:]+\](:\d{1,5})?", endpoint):
        raise TrainingError(f"--s3-endpoint must be a URL with http:// or https://, not {endpoint!r}.", code="AT-551")
    if os.environ.get("AWS_SESSION_TOKEN"):
        raise TrainingError(
            "--s3-endpoint needs permanent keys, but AWS_SESSION_TOKEN is set: jobs outlive temporary credentials.",
            code="AT-552",
        )
    if not bucket:
        raise TrainingError("--s3-bucket is empty: name a bucket of the store.", code="AT-553")
    keys = [os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    if not all(keys):
        raise TrainingError(
            "--s3-endpoint needs its keys in the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
            code="AT-554",
        )
    return S3Settings(endpoint, bucket, prefix, region, *keys)
