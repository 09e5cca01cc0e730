"""What a page is told of a service: addresses and more by those only who may read the connection."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from starlette.concurrency import run_in_threadpool

from airflow_training.plugins.access import Rights
from airflow_training.plugins.clients import Service
from airflow_training.plugins.gateway import Answer


async def told_to(rights: Rights, service: Service, answer: Answer[Any]) -> Answer[Any]:
    """An answer as a user may have it: why there is none is told in full to who may read the connection."""
    if answer.reachable or await run_in_threadpool(rights.connection, service.conn_id):
        return answer
    code = f" [{answer.code}]" if answer.code else ""
    said = (
        f"The training service cannot be reached or does not answer as it should{code}; whoever looks after the"
        f" connection {service.conn_id} sees more here."
    )
    return replace(answer, message=said)
