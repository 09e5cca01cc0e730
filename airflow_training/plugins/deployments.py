"""Which trainings' models are deployed now, by the deployment events that tasks pushed as XComs."""

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

# The latest XComs with deployment events; only tasks that deploy push them.
_MAX_XCOMS = 500

# Trainings in a row, each of which continues from the model of the one before.
_MAX_CHAIN = 3
_SCHEME = "training://"
_JOB = re.compile(r"/jobs/[^/]+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(?:/|$)")


@cached(TTLCache(1, 2.0), lock=Lock())
def deployed_locations() -> set[str]:
    """The locations of the models that are deployed, and of those that they were made from."""
    deployed = select(XComModel.value).where(XComModel.key == DEPLOYED_KEY)
    newest = deployed.order_by(XComModel.timestamp.desc()).limit(_MAX_XCOMS)
    with create_session(scoped=False) as session:
        values = list(session.scalars(newest))
    found = served(event for value in reversed(values) if isinstance(value, list) for event in value)
    added = found
    for _ in range(_MAX_CHAIN):
        added = _made_from(added) - found
        found = found | added
    return found


def _made_from(locations: Iterable[str]) -> set[str]:
    """The inputs of the trainings behind locations: a model that is validated or trained further has a new location."""
    jobs = [found[1] for location in locations if (found := _JOB.search(location))]
    trainings = trainings_of(list(owners_of(jobs).values())) if jobs else []
    return {value for training in trainings for _, value in training.parameters if value.startswith(_SCHEME)}


def served(events: Iterable[Any]) -> set[str]:
    """The locations that are deployed after some events: of each model, the latest version that was not withdrawn.

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
