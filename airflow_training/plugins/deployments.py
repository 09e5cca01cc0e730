"""Which trainings' models are served now, by what tasks told of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from threading import Lock
from typing import Any

from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from cachetools import TTLCache, cached
from sqlalchemy import select

from airflow_training.plugins.job_owners import owners_of
from airflow_training.plugins.task_instances import trainings_of
from airflow_training.xcom_keys import DEPLOYED_KEY

# Tasks that told of it, the latest ones. They are few: those that deploy.
_MOST = 500

# Trainings in a row, each of which works on what the one before has left.
_LINKS = 3
_SCHEME = "training://"
_JOB = re.compile(r"/jobs/[^/]+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/")


@cached(TTLCache(1, 2.0), lock=Lock())
def deployed_locations() -> set[str]:
    """The locations of the models that are served, and of those that they were made of."""
    told = (
        select(XComModel.value).where(XComModel.key == DEPLOYED_KEY).order_by(XComModel.timestamp.desc()).limit(_MOST)
    )
    with create_session(scoped=False) as session:
        values = list(session.scalars(told))
    found = served(event for value in reversed(values) if isinstance(value, list) for event in value)
    newly = found
    for _ in range(_LINKS):
        newly = _made_of(newly) - found
        found = found | newly
    return found


def _made_of(locations: Iterable[str]) -> set[str]:
    """What trainings were given as their data: a model that is validated, or trained further, has another location."""
    jobs = [found[1] for location in locations if (found := _JOB.search(location))]
    trainings = trainings_of(list(owners_of(jobs).values())) if jobs else []
    return {value for training in trainings for _, value in training.parameters if value.startswith(_SCHEME)}


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
