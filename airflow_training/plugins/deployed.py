"""Which models are served now, by what tasks told of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import select

from airflow_training.xcoms import DEPLOYED_KEY

# Tasks that told of it, the latest ones. They are few: those that deploy.
_MOST = 500


def deployed_locations() -> set[str]:
    """The locations of the trainings whose models are served."""
    told = (
        select(XComModel.value).where(XComModel.key == DEPLOYED_KEY).order_by(XComModel.timestamp.desc()).limit(_MOST)
    )
    with create_session(scoped=False) as session:
        values = list(session.scalars(told))
    return served(event for value in reversed(values) if isinstance(value, list) for event in value)


def served(events: Iterable[Any]) -> set[str]:
    """Which locations are served after some events: of each model the version that was deployed last and stayed.

    >>> first = {"model": "/models/census", "version": 1, "location": "training://a"}
    >>> second = first | {"version": 2, "location": "training://b"}
    >>> served([first, second])
    {'training://b'}
    >>> served([first, second, {"model": "/models/census", "version": 2, "location": None}])
    {'training://a'}
    """
    models: dict[str, dict[str, str]] = {}
    for event in events:
        if not isinstance(event, dict) or not {"model", "version", "location"} <= set(event):
            continue
        versions = models.setdefault(str(event["model"]), {})
        versions.pop(str(event["version"]), None)
        if event["location"] is not None:
            versions[str(event["version"])] = str(event["location"])
    return {list(versions.values())[-1] for versions in models.values() if versions}
