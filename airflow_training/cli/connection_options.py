"""The options that name a training service, and the client for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.exceptions import InvalidConnection

if TYPE_CHECKING:
    from airflow_training.client.client import TrainingClient
    from airflow_training.client.retry import RetryPolicy

_PANEL = "Training service"

ConnectionOption = Annotated[
    str | None,
    typer.Option(
        "--connection",
        "-c",
        help="Airflow connection on this machine.",
        show_default="training_default, if nothing else names a service",
        rich_help_panel=_PANEL,
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        help="Profile in profiles.ini; the variable TRAINING_URL takes precedence over the default one.",
        show_default="default, if there is one",
        rich_help_panel=_PANEL,
    ),
]


def connect(connection: str | None, profile: str | None, policy: RetryPolicy | None = None) -> TrainingClient:
    """Make a client of the service named by an option, the environment, the default profile or Airflow, in this order.

    Raises:
        InvalidConnection: No service is named, or its settings are invalid.
    """
    from airflow_training.cli.profiles import DEFAULT_PROFILE, from_environment, from_profile, has_default_profile
    from airflow_training.client.client import TrainingClient

    if connection and profile:
        raise InvalidConnection("Use either --connection or --profile, not both.", code="AT-121")
    if connection:
        return _of_airflow(connection, policy)
    if profile:
        return TrainingClient(from_profile(profile), policy)
    if settings := from_environment():
        return TrainingClient(settings, policy)
    if has_default_profile():
        return TrainingClient(from_profile(DEFAULT_PROFILE), policy)
    return _of_airflow(None, policy)


def _of_airflow(connection: str | None, policy: RetryPolicy | None) -> TrainingClient:
    # As `airflow connections test` does: otherwise only tasks get the connections in Airflow's database.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"

    from airflow_training.cli.profiles import profiles_file
    from airflow_training.hooks.training import TrainingHook

    try:
        return TrainingHook(connection or TrainingHook.default_conn_name).client(policy=policy)
    except InvalidConnection as error:
        if connection or error.code != "AT-101":
            raise
        file = profiles_file()
        raise InvalidConnection(
            "No training service is named: use --connection or --profile, set TRAINING_URL, add a profile [default]"
            f" to {file}, or create the Airflow connection training_default.",
            code="AT-128",
        ) from error
