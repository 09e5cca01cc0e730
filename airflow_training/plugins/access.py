"""Who may see a job: Airflow's own rights to its task, or to its connection.

A dependency that checks a right returns what the right is for, so that nothing else is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from fastapi import Depends, HTTPException, Request

from airflow_training.plugins.job_owners import owner_of
from airflow_training.plugins.job_refs import JobRef, TaskRef, read_ref


class Rights:
    """What a user may do.

    Args:
        user: The user.
    """

    def __init__(self, user: BaseUser) -> None:
        self._user = user

    def dag(self, dag_id: str, entity: DagAccessEntity = DagAccessEntity.TASK_INSTANCE, *, edit: bool = False) -> bool:
        """Whether they may read the task instances of a Dag, or edit them; or the logs of the tasks."""
        return get_auth_manager().is_authorized_dag(
            method="PUT" if edit else "GET",
            access_entity=entity,
            details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
            user=self._user,
        )

    def connection(self, conn_id: str, *, edit: bool = False) -> bool:
        """Whether they may read a connection, or edit it."""
        return get_auth_manager().is_authorized_connection(
            method="PUT" if edit else "GET",
            details=ConnectionDetails(conn_id=conn_id, team_name=Connection.get_team_name(conn_id)),
            user=self._user,
        )

    def job(self, ref: TaskRef | JobRef, entity: DagAccessEntity, *, edit: bool = False) -> bool:
        """Whether they may see a job, or cancel it.

        One that is named by its connection may be the job of a task: then the right to the task is needed as well.
        """
        if isinstance(ref, TaskRef):
            return self.dag(ref.dag_id, entity, edit=edit)
        if not self.connection(ref.conn_id, edit=edit):
            return False
        owner = owner_of(ref.job_id)
        return not owner or self.dag(owner.dag_id, entity, edit=edit)


def rights(user: GetUserDep) -> Rights:
    """The rights of who asks; refuses who has not logged in."""
    return Rights(user)


RightsDep = Annotated[Rights, Depends(rights)]


def _allowed(entity: DagAccessEntity, *, edit: bool = False) -> Callable[[Request, Rights], TaskRef | JobRef]:
    def ref(request: Request, rights: RightsDep) -> TaskRef | JobRef:
        found = read_ref(request.query_params)
        if not rights.job(found, entity, edit=edit):
            raise HTTPException(403, "You may not do this: it needs Airflow's right to the job's task or connection.")
        return found

    return ref


ReadableJob = Annotated[TaskRef | JobRef, Depends(_allowed(DagAccessEntity.TASK_INSTANCE))]
ReadableLog = Annotated[TaskRef | JobRef, Depends(_allowed(DagAccessEntity.TASK_LOGS))]
EditableJob = Annotated[TaskRef | JobRef, Depends(_allowed(DagAccessEntity.TASK_INSTANCE, edit=True))]
