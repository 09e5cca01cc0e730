"""The access log: one line of JSON for each request, with an id that the reply carries too, and never a secret."""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_training.service.errors import ServiceNotStarted
from airflow_training.service.http.prometheus import Metrics

_LARGEST_FILE = 50 * 1024 * 1024
_FILES = 5
_logger = logging.getLogger("airflow_training.access")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class AccessLog:
    """Middleware that logs and counts each request.

    A client may name its request in the header `X-Request-ID`; the others get an id here. Logged is the path alone:
    a query may hold what is no business of a log.

    Args:
        app: What answers.
        metrics: Where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        request_id = _given_id(scope) or uuid4().hex
        facts: dict[str, Any] = {"status": 500, "bytes": 0}

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            elif message["type"] == "http.response.body":
                facts["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            seconds = time.monotonic() - began
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.request(scope["method"], route, facts["status"], seconds)
            _logger.info(
                "request",
                extra={
                    "facts": {
                        "request_id": request_id,
                        "client_id": scope.get("state", {}).get("client_id"),
                        "address": (scope.get("client") or [None])[0],
                        "method": scope["method"],
                        "path": scope["path"],
                        "milliseconds": round(seconds * 1000, 1),
                        **facts,
                    }
                },
            )


def open_access_log(place: Path) -> None:
    """Say where the access log goes: to a file, of which five old ones are kept, or to the standard output if `-`.

    Raises:
        ServiceNotStarted: The file cannot be written to.
    """
    try:
        handler: logging.Handler = (
            logging.StreamHandler(sys.stdout)
            if str(place) == "-"
            else logging.handlers.RotatingFileHandler(place, maxBytes=_LARGEST_FILE, backupCount=_FILES)
        )
    except OSError as error:
        raise ServiceNotStarted(
            f"The access log {place} cannot be written to ({error.strerror}): name a file in a folder that is there.",
            code="AT-504",
        ) from error
    handler.setFormatter(_JsonLines())
    _logger.handlers = [handler]
    _logger.setLevel(logging.INFO)
    _logger.propagate = False


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time_ = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        facts: Mapping[str, Any] = getattr(record, "facts", {})
        return json.dumps({"time": time_.replace("+00:00", "Z"), **facts})


def _given_id(scope: Scope) -> str:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    given = next((value for name, value in headers if name == b"x-request-id"), b"")
    return given.decode() if _REQUEST_ID.fullmatch(given) else ""
