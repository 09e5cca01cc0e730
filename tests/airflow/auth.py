"""Who may do what in the Airflow of the tests."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.models.resource_details import DagDetails
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

DAG_OF_THE_STRANGER = "mapped"


class AuthManager(SimpleAuthManager):
    """Airflow's own, which knows no rights to single Dags, and one user who has none but to one Dag."""

    def is_authorized_dag(
        self, *, user: SimpleAuthManagerUser, details: DagDetails | None = None, **kwargs: Any
    ) -> bool:
        """Ask Airflow's own, and refuse the stranger all Dags but theirs."""
        theirs = details is not None and details.id == DAG_OF_THE_STRANGER
        allowed = super().is_authorized_dag(user=user, details=details, **kwargs)
        return allowed and (user.username != "stranger" or theirs)
