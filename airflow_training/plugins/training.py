"""The plugin: in Airflow's UI a page for each training task, one for each Dag, and one for all jobs.

Every process of Airflow that loads plugins imports this module, so it imports next to nothing. The application is
imported on the first request.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_training.urls import PREFIX, TASK_TAB, base_path

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class _LazyApplication:
    """The application behind the pages, made on the first request: it does not delay the start of the api-server."""

    def __init__(self) -> None:
        self._application: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._application is None:
            # Its imports take a second, during which other requests are served.
            self._application = await asyncio.to_thread(_application)
        await self._application(scope, receive, send)


def _application() -> ASGIApp:
    from airflow_training.plugins.app import application  # noqa: PLC0415

    return application()


class TrainingPlugin(AirflowPlugin):
    """The pages, and their places in Airflow's UI."""

    name = "training"
    # Airflow declares these as attributes of instances, and reads them from the class.
    fastapi_apps = [{"name": "Training", "app": _LazyApplication(), "url_prefix": PREFIX}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Training",
            # Airflow's UI fills these in, except for the index of a task that is not mapped.
            "href": f"{base_path()}{PREFIX}/job?dag_id={{DAG_ID}}&run_id={{RUN_ID}}&task_id={{TASK_ID}}"
            "&map_index={MAP_INDEX}",
            "destination": "task_instance",
            "url_route": TASK_TAB,
        },
        {
            "name": "Trainings",
            "href": f"{base_path()}{PREFIX}/compare?dag_id={{DAG_ID}}",
            "destination": "dag",
            "url_route": "trainings",
        },
        {
            "name": "Training jobs",
            "href": f"{base_path()}{PREFIX}/jobs",
            "destination": "nav",
            "category": "browse",
            "url_route": "training-jobs",
        },
    ]
