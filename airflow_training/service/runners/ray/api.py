"""Ray's Jobs API, as far as it is used here: packages, jobs, their logs, and the nodes of the cluster.

Source: Ray's documentation, "Ray Jobs REST API" and "State API"; packages are uploaded as `ray job submit` does it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

from airflow_training.service.errors import RayAway, RayRefused

# Seconds that a request may take. A log that is followed says that it is alive this often.
_TIMEOUT = 30.0
_HEARTBEAT = 20.0


@dataclass(frozen=True)
class RayJob:
    """What Ray says of a job.

    Attributes:
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: Why.
        error_type: The kind of a failure, in Ray's words.
    """

    status: str
    message: str
    error_type: str

    @property
    def over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class Node:
    """What a node of the cluster has: cpus, bytes of memory, gpus."""

    cpus: int
    memory: int
    gpus: int


class RayApi:
    """A connection to a cluster; a context.

    Args:
        address: The address of its dashboard, such as `http://head:8265`.
        headers: Headers of every request, which may prove who we are.
    """

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self._address = address.rstrip("/")
        self._headers = headers

    async def __aenter__(self) -> RayApi:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def upload(self, package: bytes) -> str:
        """Upload a working directory, a ZIP archive; returns its address for a job's `runtime_env`."""
        name = f"_ray_pkg_{hashlib.sha256(package).hexdigest()[:32]}.zip"
        await self._request("PUT", f"/api/packages/gcs/{name}", data=package)
        return f"gcs://{name}"

    async def submit(self, submission_id: str, job: Mapping[str, Any]) -> None:
        """Submit a job; safe to repeat."""
        try:
            await self._request("POST", "/api/jobs/", json={**job, "submission_id": submission_id})
        except (RayAway, RayRefused):
            # Its answer may have been lost.
            if await self.job(submission_id) is None:
                raise

    async def job(self, submission_id: str) -> RayJob | None:
        """What Ray says of a job; None where it knows of none."""
        try:
            found = await self._request("GET", f"/api/jobs/{submission_id}")
        except RayRefused as refused:
            if refused.status == 404:
                return None
            # By a proxy before it, which may let us pass again.
            raise RayAway(str(refused)) from refused
        return RayJob(found["status"], found.get("message") or "", found.get("error_type") or "")

    async def stop(self, submission_id: str) -> None:
        """Ask for the end of a job; one that is not known, or has ended, is left alone."""
        try:
            await self._request("POST", f"/api/jobs/{submission_id}/stop")
        except RayRefused:
            return

    async def lines(self, submission_id: str) -> AsyncIterator[str]:
        """The lines of a job's log from its beginning, as they are written, until the job ends.

        Raises:
            RayAway: The log ends before the job does, for all that is known.
        """
        address = f"{self._address}/api/jobs/{submission_id}/logs/tail"
        try:
            # A log is followed for as long as the job runs.
            async with self._session.ws_connect(
                address, max_msg_size=0, heartbeat=_HEARTBEAT, timeout=aiohttp.ClientWSTimeout(ws_close=_TIMEOUT)
            ) as log:
                partial = ""
                async for message in log:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break
                    *lines, partial = (partial + message.data).split("\n")
                    for line in lines:
                        yield line
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise RayAway(_words(error)) from error

    async def nodes(self) -> list[Node]:
        """The nodes that are alive."""
        found = await self._request("GET", "/api/v0/nodes?detail=1&limit=10000")
        resources = [
            node.get("resources_total") or {} for node in found["data"]["result"]["result"] if node["state"] == "ALIVE"
        ]
        return [Node(int(has.get("CPU", 0)), int(has.get("memory", 0)), int(has.get("GPU", 0))) for has in resources]

    async def _request(self, method: str, path: str, **content: Any) -> Any:
        try:
            async with self._session.request(method, f"{self._address}{path}", **content) as reply:
                text = await reply.text()
                if reply.status >= 500:
                    raise RayAway(_last_line(text) or f"it answers with {reply.status}")
                if reply.status >= 400:
                    raise RayRefused(_last_line(text) or f"it answers with {reply.status}", reply.status)
                return await reply.json() if text else {}
        except (aiohttp.ClientError, OSError, ValueError, asyncio.TimeoutError) as error:
            raise RayAway(_words(error)) from error


def _last_line(text: str) -> str:
    """What a trace of Ray's own says in the end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else ""


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
