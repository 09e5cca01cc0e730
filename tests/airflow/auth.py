"""The users and their permissions in the Airflow of the tests."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

DAG_OF_THE_STRANGER = "mapped"


class AuthManager(SimpleAuthManager):
    """Airflow's own auth manager, which has no permissions per Dag, with one user who may access a single Dag."""

    def is_authorized_dag(
        self, *, user: SimpleAuthManagerUser, details: DagDetails | None = None, **kwargs: Any
    ) -> bool:
        """Apply Airflow's permissions, and refuse the stranger all other Dags."""
        theirs = details is not None and details.id == DAG_OF_THE_STRANGER
        allowed = super().is_authorized_dag(user=user, details=details, **kwargs)
        return allowed and (user.username != "stranger" or theirs)
