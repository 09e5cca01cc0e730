"""A client for Ray's Jobs API: packages, jobs, their logs, and the nodes of the cluster.

Source: Ray's documentation, "Ray Jobs REST API" and "State API"; packages are uploaded as `ray job submit` does.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from airflow_training.service.errors import RayRefused, RayUnavailable

# Seconds per request, and between heartbeats of a log stream.
_TIMEOUT = 30.0
_HEARTBEAT = 20.0


@dataclass(frozen=True)
class RayJob:
    """Ray's status of a job.

    Attributes:
        status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED.
        message: The reason.
        error_type: Ray's type of a failure.
    """

    status: str
    message: str
    error_type: str

    @property
    def ended(self) -> bool:
        """Whether no process of it runs any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


@dataclass(frozen=True)
class Node:
    """The resources of a node: CPUs, bytes of memory, GPUs."""

    cpus: int
    memory: int
    gpus: int


class RayApi:
    """A connection to a cluster; an asynchronous context manager.

    Args:
        address: The URL of the dashboard, such as `http://head:8265`.
        headers: Headers of every request, such as credentials.
    """

    def __init__(self, address: str, headers: Mapping[str, str]) -> None:
        self._address = address.rstrip("/")
        self._headers = headers

    async def __aenter__(self) -> RayApi:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def upload(self, package: bytes) -> str:
        """Upload a working directory, a ZIP archive; returns its URI for a job's `runtime_env`."""
        name = f"_ray_pkg_{hashlib.sha256(package).hexdigest()[:32]}.zip"
        await self._request("PUT", f"/api/packages/gcs/{name}", data=package)
        return f"gcs://{name}"

    async def submit(self, submission_id: str, job: Mapping[str, Any]) -> None:
        """Submit a job; safe to repeat."""
        try:
            await self._request("POST", "/api/jobs/", json={**job, "submission_id": submission_id})
        except (RayUnavailable, RayRefused):
            # The job may have been accepted and the response lost.
            if await self.job(submission_id) is None:
                raise

    async def job(self, submission_id: str) -> RayJob | None:
        """The status of a job; None if Ray does not know it."""
        try:
            found = await self._request("GET", f"/api/jobs/{submission_id}")
        except RayRefused as refused:
            if refused.status == 404:
                return None
            # From a proxy, which may recover.
            raise RayUnavailable(str(refused)) from refused
        return RayJob(found["status"], found.get("message") or "", found.get("error_type") or "")

    async def stop(self, submission_id: str) -> None:
        """Ask Ray to stop a job; no effect if it is unknown or has ended."""
        try:
            await self._request("POST", f"/api/jobs/{submission_id}/stop")
        except RayRefused:
            return

    async def log_lines(self, submission_id: str) -> AsyncIterator[str]:
        """Follow the log of a job from its beginning.

        The stream may end before the job does.

        Raises:
            RayUnavailable: The connection failed.
        """
        url = f"{self._address}/api/jobs/{submission_id}/logs/tail"
        try:
            async with self._session.ws_connect(
                url, max_msg_size=0, heartbeat=_HEARTBEAT, timeout=aiohttp.ClientWSTimeout(ws_close=_TIMEOUT)
            ) as log:
                partial = ""
                async for message in log:
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        break
                    *lines, partial = (partial + message.data).split("\n")
                    for line in lines:
                        yield line
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
            raise RayUnavailable(_text(error)) from error

    async def nodes(self) -> list[Node]:
        """The nodes in state ALIVE."""
        found = await self._request("GET", "/api/v0/nodes?detail=1&limit=10000")
        resources = [
            node.get("resources_total") or {} for node in found["data"]["result"]["result"] if node["state"] == "ALIVE"
        ]
        return [Node(int(has.get("CPU", 0)), int(has.get("memory", 0)), int(has.get("GPU", 0))) for has in resources]

    async def _request(self, method: str, path: str, **content: Any) -> Any:
        try:
            async with self._session.request(method, f"{self._address}{path}", **content) as response:
                text = await response.text()
                if response.status >= 500:
                    raise RayUnavailable(_last_line(text) or f"HTTP {response.status}")
                if response.status >= 400:
                    raise RayRefused(_last_line(text) or f"HTTP {response.status}", response.status)
                return await response.json() if text else {}
        except (aiohttp.ClientError, OSError, ValueError, asyncio.TimeoutError) as error:
            raise RayUnavailable(_text(error)) from error


def _last_line(text: str) -> str:
    """The last line of a traceback from Ray."""
    log_lines = [line.strip() for line in text.splitlines() if line.strip()]
    return log_lines[-1][:500] if log_lines else ""


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
