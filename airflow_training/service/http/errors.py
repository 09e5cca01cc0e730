"""Error replies: exception handlers that answer every error with the same object."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route

from airflow_training.exceptions import coded
from airflow_training.service.database.engine import DATABASE_UNAVAILABLE, reason
from airflow_training.service.errors import ApiError

_logger = logging.getLogger(__name__)

# Each of the ten thousand jobs of a request may have some.
_MAX_ERRORS = 10


class ErrorDetail(BaseModel):
    """The HTTP status as a string, and a sentence with the cause and the fix."""

    code: str
    message: str


class ErrorDocument(BaseModel):
    """The error object of the job API."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "code": "404",
                        "message": "There is no job 6f2c1c5e: it was not submitted, or has been removed. [AT-611]",
                    }
                }
            ]
        }
    )

    error: ErrorDetail


_DESCRIPTIONS = {
    400: "The body cannot be read.",
    401: "The access token is missing, invalid or expired.",
    403: "The access token lacks the required scope.",
    404: "The tenant has no such job.",
    409: "The id is taken by a job with another description, or the job cannot run again.",
    413: "The body is too large.",
    416: "There is nothing at that byte yet.",
    422: "The request is not valid; the message lists all validation errors.",
    429: "Too many jobs are waiting.",
    503: "The database is unavailable: try again.",
    507: "There is not enough space on the disk.",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error replies of an endpoint, for its `responses` in OpenAPI."""
    return {status: {"model": ErrorDocument, "description": _DESCRIPTIONS[status]} for status in statuses}


COMMON_ERRORS = error_responses(401, 403, 503)
"""The error replies that every endpoint of the job API can return."""


def error_response(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """A reply with the error object of the job API."""
    return JSONResponse({"error": {"code": str(status), "message": message}}, status, headers)


def invalid_request(details: Sequence[Any]) -> ApiError:
    """The error of a request with these validation errors, without its values, which may be secrets."""
    errors = [
        f"{'.'.join(str(part)[:64] for part in each['loc']) or 'the body'}: {each['msg']}"
        for each in details[:_MAX_ERRORS]
    ]
    if len(details) > _MAX_ERRORS:
        errors.append(f"and {len(details) - _MAX_ERRORS} more")
    return ApiError(422, f"The request is not valid: {'; '.join(errors)}.", code="AT-633")


def _allowed_methods(request: Request) -> str:
    """The methods of a path: Starlette's own Allow has those of its first route only."""
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

    @app.exception_handler(HTTPException)
    def _http_error(request: Request, error: HTTPException) -> JSONResponse:
        method, path = request.method, request.url.path
        if error.status_code == 404:
            message = coded(f"There is nothing at {path}: the job API begins with /api/v2/.", code="AT-641")
        elif error.status_code == 405:
            message = coded(
                f"{method} {path} is not possible; the header Allow lists the methods that are.", code="AT-642"
            )
        else:
            message = coded(f"{method} {path} failed: {error.detail}.", code="AT-643")
        headers = {
            **(error.headers or {}),
            **({"Allow": _allowed_methods(request)} if error.status_code == 405 else {}),
        }
        return error_response(error.status_code, message, headers)

    @app.exception_handler(RequestValidationError)
    def _invalid_request(_request: Request, error: RequestValidationError) -> JSONResponse:
        # The rest of a location is the part of the request, such as the query.
        refused = invalid_request([{**detail, "loc": detail["loc"][-1:]} for detail in error.errors()])
        return error_response(refused.status, str(refused))

    def _database_unavailable(request: Request, error: Exception) -> JSONResponse:
        what = f"{request.method} {request.url.path}"
        _logger.error("%s failed, the database is unavailable: %s", what, reason(error))
        return error_response(503, coded("The database of the service is unavailable: try again.", code="AT-644"))

    for unavailable in DATABASE_UNAVAILABLE:
        app.add_exception_handler(unavailable, _database_unavailable)

    @app.exception_handler(Exception)
    def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
        _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return error_response(
            500, coded("The service failed to answer this request; its log has the reason.", code="AT-645")
        )
