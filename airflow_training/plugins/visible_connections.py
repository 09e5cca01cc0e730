"""The connections to training services that a user may look at."""

from __future__ import annotations

import os

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.connection import Connection
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_training.exceptions import TrainingError
from airflow_training.hooks.training import TrainingHook
from airflow_training.plugins.access import Rights

# What Airflow itself calls the variables of its environment that hold connections.
_VARIABLE = "AIRFLOW_CONN_"


def readable_connections(user: GetUserDep, rights: Rights) -> list[str]:
    """The names of the connections to training services that a user may read.

    They are those of Airflow's database and of the api-server's environment; a secrets backend does not tell which
    connections it has.
    """
    with create_session(scoped=False) as session:
        there = set(session.scalars(select(Connection.conn_id).where(Connection.conn_type == TrainingHook.conn_type)))
    readable = there & get_auth_manager().get_authorized_connections(user=user, method="GET")
    names = (name.removeprefix(_VARIABLE).lower() for name in os.environ if name.startswith(_VARIABLE))
    return sorted(readable | {name for name in names if rights.connection(name) and _is_there(name)})


def is_training(conn_id: str) -> bool:
    """Whether a connection is one to a training service: what others hold is for other servers.

    Raises:
        InvalidConnection: There is none.
        ServiceUnavailable: It cannot be read at the moment.
    """
    return bool(TrainingHook(conn_id).connection().conn_type == TrainingHook.conn_type)


def _is_there(conn_id: str) -> bool:
    try:
        return is_training(conn_id)
    except TrainingError:  # Airflow cannot read the variable
        return False
