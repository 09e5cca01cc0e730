"""Which training service a command speaks to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from airflow_training.exceptions import InvalidConnection

if TYPE_CHECKING:
    from airflow_training.client.client import TrainingClient
    from airflow_training.client.retry import RetryPolicy

_WHICH = "Which training service"

ConnectionOption = Annotated[
    str | None,
    typer.Option(
        "--connection",
        "-c",
        help="Connection of Airflow on this machine.",
        show_default="training_default, where there is no other",
        rich_help_panel=_WHICH,
    ),
]
ProfileOption = Annotated[
    str | None,
    typer.Option(
        "--profile",
        "-p",
        help="Profile in profiles.ini; the one called default comes after the variable TRAINING_URL.",
        show_default="default, if there is one",
        rich_help_panel=_WHICH,
    ),
]


def connect(connection: str | None, profile: str | None, policy: RetryPolicy | None = None) -> TrainingClient:
    """Make a client of the service that is meant: that of the option, of the environment, of a profile, of Airflow.

    Raises:
        InvalidConnection: There is none, or something in it is missing or wrong.
    """
    from airflow_training.cli.profiles import PROFILE_BY_DEFAULT, has_default_profile, of_environment, of_profile
    from airflow_training.client.client import TrainingClient

    if connection and profile:
        raise InvalidConnection("A service is named by --connection or by --profile, not by both.", code="AT-121")
    if connection:
        return _of_airflow(connection, policy)
    if profile:
        return TrainingClient(of_profile(profile), policy)
    if settings := of_environment():
        return TrainingClient(settings, policy)
    if has_default_profile():
        return TrainingClient(of_profile(PROFILE_BY_DEFAULT), policy)
    return _of_airflow(None, policy)


def _of_airflow(connection: str | None, policy: RetryPolicy | None) -> TrainingClient:
    # As `airflow connections test` does: without it, only tasks are given the connections of Airflow's database.
    os.environ["_AIRFLOW_PROCESS_CONTEXT"] = "server"

    from airflow_training.cli.profiles import profiles_file
    from airflow_training.hooks.training import TrainingHook

    try:
        return TrainingHook(connection or TrainingHook.default_conn_name).client(policy=policy)
    except InvalidConnection as error:
        if connection or error.code != "AT-101":
            raise
        raise InvalidConnection(
            f"No training service is named: use --connection or --profile, set TRAINING_URL, write a profile [default]"
            f" into {profiles_file()}, or create Airflow's connection {TrainingHook.default_conn_name}.",
            code="AT-128",
        ) from error
