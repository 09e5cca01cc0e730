"""The access log: a line of JSON for each request, with the id that is in the reply too, and without secrets."""

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

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from airflow_training.service.errors import ServiceNotStarted
from airflow_training.service.http.prometheus import ServiceMetrics

_MAX_FILE = 50 * 1024 * 1024
_OLD_FILES = 5
_logger = logging.getLogger("airflow_training.access")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class AccessLog:
    """Middleware that logs and counts each request.

    A client may choose the request id with the header `X-Request-ID`; otherwise one is generated. Only the path is
    logged: a query may contain secrets.

    Args:
        app: The application.
        metrics: Counts the requests.
    """

    def __init__(self, app: ASGIApp, metrics: ServiceMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.monotonic()
        request_id = Headers(scope=scope).get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = uuid4().hex
        reply: dict[str, Any] = {"status": 500, "bytes": 0}

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                reply["status"] = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            elif message["type"] == "http.response.body":
                reply["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            seconds = time.monotonic() - start
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.request(scope["method"], route, reply["status"], seconds)
            _logger.info(
                "request",
                extra={
                    "fields": {
                        "request_id": request_id,
                        "client_id": scope.get("state", {}).get("client_id"),
                        "address": (scope.get("client") or [None])[0],
                        "method": scope["method"],
                        "path": scope["path"],
                        "milliseconds": round(seconds * 1000, 1),
                        **reply,
                    }
                },
            )


def open_access_log(file: Path) -> None:
    """Write the access log to a rotated file, or to the standard output if it is `-`.

    Raises:
        ServiceNotStarted: The file cannot be written.
    """
    try:
        handler: logging.Handler = (
            logging.StreamHandler(sys.stdout)
            if str(file) == "-"
            else logging.handlers.RotatingFileHandler(file, maxBytes=_MAX_FILE, backupCount=_OLD_FILES)
        )
    except OSError as error:
        raise ServiceNotStarted(
            f"The access log {file} cannot be written ({error.strerror}): choose a file in an existing folder.",
            code="AT-504",
        ) from error
    handler.setFormatter(_JsonLines())
    _logger.handlers = [handler]
    _logger.setLevel(logging.INFO)
    _logger.propagate = False


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time_ = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        fields: Mapping[str, Any] = getattr(record, "fields", {})
        return json.dumps({"time": time_.replace("+00:00", "Z"), **fields})
