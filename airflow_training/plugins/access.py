"""What a user may see: by Airflow's permissions for the task of a job, or for its connection.

A dependency that checks a permission returns what the permission is for, so that nothing else is read.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from fastapi import Depends, HTTPException, Request
from sqlalchemy import select

from airflow_training.exceptions import TrainingError
from airflow_training.hooks.training import TrainingHook
from airflow_training.plugins.gateway import ServiceRef, is_training_connection
from airflow_training.plugins.job_owners import owner_of
from airflow_training.plugins.job_refs import JobRef, TaskRef, read_ref
from airflow_training.plugins.task_instances import Training, training_of

# Airflow's prefix of the environment variables that hold connections.
_VARIABLE = "AIRFLOW_CONN_"


class Rights:
    """The permissions of a user.

    Args:
        user: The user.
    """

    def __init__(self, user: BaseUser) -> None:
        self._user = user

    def dag(self, dag_id: str, entity: DagAccessEntity = DagAccessEntity.TASK_INSTANCE, *, edit: bool = False) -> bool:
        """Whether the user may read the task instances of a Dag, or another entity of it; or may edit them."""
        return get_auth_manager().is_authorized_dag(
            method="PUT" if edit else "GET",
            access_entity=entity,
            details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
            user=self._user,
        )

    def connection(self, conn_id: str, *, edit: bool = False) -> bool:
        """Whether the user may read a connection, or edit it."""
        return get_auth_manager().is_authorized_connection(
            method="PUT" if edit else "GET",
            details=ConnectionDetails(conn_id=conn_id, team_name=Connection.get_team_name(conn_id)),
            user=self._user,
        )

    def job(self, ref: TaskRef | JobRef, entity: DagAccessEntity, *, edit: bool = False) -> bool:
        """Whether the user may see a job, or cancel it.

        A job that is named by its connection may belong to a task: then the permission for the task is needed as well.
        """
        if isinstance(ref, TaskRef):
            return self.dag(ref.dag_id, entity, edit=edit)
        if not self.connection(ref.conn_id, edit=edit):
            return False
        owner = owner_of(ref.job_id)
        return not owner or self.dag(owner.dag_id, entity, edit=edit)


def rights(user: GetUserDep) -> Rights:
    """The permissions of the user of a request; refuses users who are not logged in."""
    return Rights(user)


RightsDep = Annotated[Rights, Depends(rights)]


@dataclass(frozen=True)
class ViewedJob:
    """The job that a page shows.

    Attributes:
        ref: How the page names it.
        training: Its task; None if no task is known.
        service: Its service; None if there is no job.
        job_id: Its id; empty if there is no job.
    """

    ref: TaskRef | JobRef
    training: Training | None
    service: ServiceRef | None
    job_id: str


def _viewed(ref: TaskRef | JobRef) -> ViewedJob:
    if isinstance(ref, JobRef):
        owner = owner_of(ref.job_id)
        training = training_of(owner) if owner else None
        # A task that has gone on with another job knows nothing of this one.
        current = training if training and training.job_id == ref.job_id else None
        return ViewedJob(ref, current, ServiceRef(ref.conn_id, current.version if current else None), ref.job_id)
    training = training_of(ref)
    if not training:
        raise HTTPException(404, "There is no such task instance.")
    service = ServiceRef(training.conn_id, training.version) if training.job_id else None
    return ViewedJob(ref, training, service, training.job_id)


def _allowed(entity: DagAccessEntity, *, edit: bool = False) -> Callable[[Request, Rights], ViewedJob]:
    def view(request: Request, rights: RightsDep) -> ViewedJob:
        ref = read_ref(request.query_params)
        if not rights.job(ref, entity, edit=edit):
            raise HTTPException(403, "You need Airflow's permission for the job's task or connection.")
        return _viewed(ref)

    return view


ReadableJob = Annotated[ViewedJob, Depends(_allowed(DagAccessEntity.TASK_INSTANCE))]
ReadableLog = Annotated[ViewedJob, Depends(_allowed(DagAccessEntity.TASK_LOGS))]
EditableJob = Annotated[ViewedJob, Depends(_allowed(DagAccessEntity.TASK_INSTANCE, edit=True))]


def readable_connections(user: GetUserDep, rights: Rights) -> list[str]:
    """The ids of the connections to training services that a user may read.

    These are connections in Airflow's database and in the api-server's environment; a secrets backend cannot list its.
    """
    with create_session(scoped=False) as session:
        stored = set(session.scalars(select(Connection.conn_id).where(Connection.conn_type == TrainingHook.conn_type)))
    readable = stored & get_auth_manager().get_authorized_connections(user=user, method="GET")
    names = (name.removeprefix(_VARIABLE).lower() for name in os.environ if name.startswith(_VARIABLE))
    return sorted(readable | {name for name in names if rights.connection(name) and _is_usable(name)})


def _is_usable(conn_id: str) -> bool:
    try:
        return is_training_connection(conn_id)
    except TrainingError:  # Airflow cannot parse the variable
        return False
