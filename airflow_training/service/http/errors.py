"""Errors on the wire: one shape for all of them, whoever found the mistake."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from airflow_training.exceptions import coded
from airflow_training.service.database.engine import AWAY, reason
from airflow_training.service.errors import ApiError, InvalidDescription

_logger = logging.getLogger(__name__)


class ErrorFacts(BaseModel):
    """What went wrong: the HTTP status as a text, and a sentence that says what to do."""

    code: str
    message: str


class ErrorDocument(BaseModel):
    """The error object of the job API."""

    error: ErrorFacts


_MEANINGS = {
    400: "The body cannot be read.",
    401: "The access token is missing, wrong or expired.",
    403: "The access token does not have the scope that this needs.",
    404: "The tenant has no such job.",
    409: "The id is taken by a job with another description.",
    413: "The body is too large.",
    416: "There is nothing at that byte yet.",
    422: "What was sent is not what it should be; every mistake is named.",
    429: "Too many jobs wait already.",
    503: "The database does not answer now: try again.",
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI is told of an endpoint's errors."""
    return {status: {"model": ErrorDocument, "description": _MEANINGS[status]} for status in statuses}


REFUSALS = refusals(401, 403, 503)
"""What every endpoint of the job API can answer."""


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error object of the job API; its code is a text."""
    return JSONResponse({"error": {"code": str(status), "message": message}}, status, headers)


def _allowed(request: Request) -> str:
    """What may be done at a path: Starlette tells of the first of its routes only."""
    methods = [
        route.methods or set()
        for route in request.app.routes
        if isinstance(route, Route) and route.matches({**request.scope, "path_params": {}})[0] is not Match.NONE
    ]
    return ", ".join(sorted(set().union(*methods)))


def install_error_handlers(app: FastAPI) -> None:
    """Answer every error of an application with the error object."""

    @app.exception_handler(ApiError)
    def _api_error(_request: Request, error: ApiError) -> JSONResponse:
        return error_response(error.status, str(error), error.headers)

    @app.exception_handler(InvalidDescription)
    def _invalid_description(_request: Request, error: InvalidDescription) -> JSONResponse:
        return error_response(error.status, str(error))

    @app.exception_handler(HTTPException)
    def _http_error(request: Request, error: HTTPException) -> JSONResponse:
        what = f"{request.method} {request.url.path}"
        if error.status_code == 404:
            message = coded(f"There is nothing at {request.url.path}: the job API begins with /api/v2/.", code="AT-641")
        elif error.status_code == 405:
            message = coded(f"{what} is not possible; the header Allow tells what is.", code="AT-642")
        else:
            message = coded(f"{what} failed: {error.detail}.", code="AT-643")
        headers = {**(error.headers or {}), **({"Allow": _allowed(request)} if error.status_code == 405 else {})}
        return error_response(error.status_code, message, headers)

    @app.exception_handler(RequestValidationError)
    def _invalid_request(_request: Request, error: RequestValidationError) -> JSONResponse:
        listed = "; ".join(f"{mistake['loc'][-1]}: {mistake['msg']}" for mistake in error.errors())
        return error_response(422, coded(f"The request is not valid: {listed}.", code="AT-633"))

    def _no_database(request: Request, error: Exception) -> JSONResponse:
        what = f"{request.method} {request.url.path}"
        _logger.error("%s failed, the database does not answer: %s", what, reason(error))
        return error_response(503, coded("The database of the service does not answer now: try again.", code="AT-644"))

    for away in AWAY:
        app.add_exception_handler(away, _no_database)

    @app.exception_handler(Exception)
    def _bug(request: Request, error: Exception) -> JSONResponse:
        _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(
            500, coded("The service failed to answer this request; its log tells why.", code="AT-645")
        )
