"""The token endpoint: OAuth 2.0 client credentials, in every form that clients use.

Source: RFC 6749, sections 2.3.1 (credentials), 4.4 (the grant), 5.1 and 5.2 (the replies).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Literal
from urllib.parse import parse_qsl, unquote_plus

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from airflow_training.service.context import Body, ServiceParts

router = APIRouter(tags=["token"])

_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}

# Each check of a secret takes 64 MiB and a core for a moment, on purpose. More at once would only wait for each
# other, and hold the threads that the job API answers with.
_checks = CapacityLimiter(2)


class _Refused(Exception):
    def __init__(self, error: Literal["invalid_request", "invalid_client", "unsupported_grant_type"], why: str) -> None:
        self.error = error
        super().__init__(why)


@router.get("/oauth/token")
@router.post("/oauth/token")
async def token(request: Request, body: Body, service: ServiceParts) -> JSONResponse:
    """Exchange client credentials for an access token.

    `grant_type=client_credentials` stands in the query of a GET or in the form of a POST; the credentials in
    the header `Authorization: Basic`, or as `client_id` and `client_secret` in the form.
    """
    try:
        query = list(request.query_params.multi_items()) if request.method == "GET" else []
        client_id, secret = _credentials(request, _parameters([*query, *_form(body)]))
        tenant = await to_thread.run_sync(service.clients.tenant_of, client_id, secret, limiter=_checks)
        if tenant is None:
            raise _Refused("invalid_client", "The client id or the client secret is wrong.")
    except _Refused as refused:
        status, challenge = (401, {"WWW-Authenticate": "Basic"}) if refused.error == "invalid_client" else (400, {})
        answer = {"error": refused.error, "error_description": str(refused)}
        return JSONResponse(answer, status, _NO_STORE | challenge)
    return JSONResponse(
        {
            "access_token": service.tokens.issue(client_id, tenant),
            "token_type": "bearer",
            "expires_in": service.tokens.lifetime,
        },
        headers=_NO_STORE,
    )


def _form(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise _Refused("invalid_request", "The body is not a form (application/x-www-form-urlencoded).") from None


def _parameters(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise _Refused("invalid_request", "A parameter is given more than once.")
    grant_type = parameters.get("grant_type")
    if not grant_type:
        raise _Refused("invalid_request", "The parameter grant_type is missing: it must be client_credentials.")
    if grant_type != "client_credentials":
        raise _Refused("unsupported_grant_type", "The parameter grant_type must be client_credentials.")
    return parameters


def _credentials(request: Request, parameters: dict[str, str]) -> tuple[str, str]:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    in_form = "client_secret" in parameters
    if scheme and in_form:
        raise _Refused("invalid_request", "The credentials are given twice, in the header and in the form.")
    if in_form and request.method == "POST":
        return parameters.get("client_id", ""), parameters["client_secret"]
    if scheme.lower() != "basic":
        raise _Refused("invalid_client", "Client id and client secret are missing: send them as HTTP Basic or as form.")
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        raise _Refused("invalid_client", "The header Authorization is not HTTP Basic.") from None
    return unquote_plus(client_id), unquote_plus(secret)
