"""What Airflow's UI shows of trainings: a page of each task, one of each Dag, and one of all jobs.

Every process of Airflow that loads plugins imports this: it costs nothing but the names. What answers is imported by
the first request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.sdk.plugins_manager import AirflowPlugin

from airflow_training.urls import PREFIX, TASK_TAB, base_path

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class _OnDemand:
    """The application behind the pages, made when somebody asks for one: the api-server starts as fast without."""

    def __init__(self) -> None:
        self._made: Application | None = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if self._made is None:
            # What it imports takes a second, in which other requests go on.
            self._made = await asyncio.to_thread(_application)
        await self._made(scope, receive, send)


def _application() -> Application:
    from airflow_training.plugins.app import application  # noqa: PLC0415

    return application()


class TrainingPlugin(AirflowPlugin):
    """The pages of trainings, and their places in Airflow's UI."""

    name = "training"
    # Airflow declares them for instances, and reads them of the class.
    fastapi_apps = [{"name": "Training", "app": _OnDemand(), "url_prefix": PREFIX}]  # noqa: RUF012
    external_views = [  # noqa: RUF012
        {
            "name": "Training",
            # Airflow's UI fills these in, but for the index of a task that is not mapped.
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
