"""The token endpoint: OAuth 2.0 client credentials, in all forms that clients use.

Source: RFC 6749, sections 2.3.1 (credentials), 4.4 (the grant), 5.1 and 5.2 (the replies).
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote_plus

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from airflow_training.exceptions import coded
from airflow_training.service.accounts.clients import RegisteredClient
from airflow_training.service.http.auth import Body, ServiceDep
from airflow_training.service.http.errors import error_responses

router = APIRouter(tags=["token"])

_CHALLENGE = {"WWW-Authenticate": 'Basic realm="training"'}
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}

# Verifying a secret that is not cached takes 64 MiB and a core for a moment, on purpose. More at once would compete for
# the cores, and occupy the threads of the job API.
_verifications = CapacityLimiter(2)

_Error = Literal["invalid_request", "invalid_client", "invalid_scope", "unsupported_grant_type"]


class Token(BaseModel):
    """An access token. Source: RFC 6749 section 5.1."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "access_token": "eyJhbGciOiJIUzI1NiJ9.e30.…",
                    "token_type": "bearer",
                    "expires_in": 43200,
                    "scope": "jobs:read jobs:write",
                }
            ]
        }
    )

    access_token: str
    token_type: Literal["bearer"] = "bearer"
    expires_in: int
    scope: str


class TokenError(BaseModel):
    """The reason for a refused token request. Source: RFC 6749 section 5.2."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": "invalid_client",
                    "error_description": "The client id or the client secret is wrong. [AT-651]",
                }
            ]
        }
    )

    error: _Error
    error_description: str


class _InvalidTokenRequest(Exception):
    def __init__(self, error: _Error, description: str, *, code: str) -> None:
        self.error = error
        super().__init__(coded(description, code=code))


_FORM = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        "grant_type": {"const": "client_credentials"},
        "scope": {"type": "string", "description": "A subset of the client's scopes, separated by spaces."},
        "client_id": {"type": "string"},
        "client_secret": {"type": "string"},
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"model": Token, "description": "A token."},
    400: {"model": TokenError, "description": "The token request is not valid."},
    401: {"model": TokenError, "description": "The client id or the secret is wrong or missing."},
    **error_responses(413, 503),
}
_QUERY = [
    {"name": "grant_type", "in": "query", "required": True, "schema": {"const": "client_credentials"}},
    {"name": "scope", "in": "query", "required": False, "schema": {"type": "string"}},
]


@router.get("/oauth/token", operation_id="get_token", responses=_RESPONSES, openapi_extra={"parameters": _QUERY})
@router.post(
    "/oauth/token",
    operation_id="create_token",
    responses=_RESPONSES,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": _FORM}}}
    },
)
async def token(request: Request, body: Body, service: ServiceDep) -> JSONResponse:
    """Exchange client credentials for an access token.

    Send `grant_type=client_credentials` in the query of a GET or in the form of a POST, and the credentials in the
    header `Authorization: Basic` or as `client_id` and `client_secret` in the form.
    """
    try:
        query = list(request.query_params.multi_items()) if request.method == "GET" else []
        parameters = _parameters([*query, *_form(body)])
        client: RegisteredClient | None = None
        for client_id, secret in _credentials(request, parameters):
            client = (
                client
                or await to_thread.run_sync(service.clients.authenticate_cached, client_id, secret)
                or await to_thread.run_sync(service.clients.authenticate, client_id, secret, limiter=_verifications)
            )
        if client is None:
            raise _InvalidTokenRequest("invalid_client", "The client id or the client secret is wrong.", code="AT-651")
        request.state.client_id = client.client_id
        scope = _scope(parameters.get("scope", ""), client)
        access_token = await to_thread.run_sync(service.tokens.issue, client, scope)
    except _InvalidTokenRequest as invalid:
        error = TokenError(error=invalid.error, error_description=str(invalid))
        if invalid.error == "invalid_client":
            return JSONResponse(error.model_dump(), 401, _NO_STORE | _CHALLENGE)
        return JSONResponse(error.model_dump(), 400, _NO_STORE)
    issued = Token(access_token=access_token, expires_in=service.tokens.lifetime, scope=" ".join(sorted(scope)))
    return JSONResponse(issued.model_dump(), headers=_NO_STORE)


def _scope(requested: str, client: RegisteredClient) -> frozenset[str]:
    """The scope of the token: the requested one, or all scopes of the client."""
    scope = frozenset(requested.split()) or client.scope
    if scope - client.scope:
        raise _InvalidTokenRequest(
            "invalid_scope", f"The client has only the scopes {' '.join(sorted(client.scope))}.", code="AT-652"
        )
    return scope


def _form(body: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise _InvalidTokenRequest(
            "invalid_request", "The body is not a form (application/x-www-form-urlencoded).", code="AT-653"
        ) from None


def _parameters(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    parameters = dict(pairs)
    if len(parameters) < len(pairs):
        raise _InvalidTokenRequest("invalid_request", "A parameter is given more than once.", code="AT-654")
    grant_type = parameters.get("grant_type")
    if not grant_type:
        raise _InvalidTokenRequest(
            "invalid_request", "The parameter grant_type is missing: it must be client_credentials.", code="AT-655"
        )
    if grant_type != "client_credentials":
        raise _InvalidTokenRequest(
            "unsupported_grant_type", "The parameter grant_type must be client_credentials.", code="AT-656"
        )
    return parameters


def _credentials(request: Request, parameters: dict[str, str]) -> list[tuple[str, str]]:
    """The client id and secret; those of HTTP Basic as they are, and form-decoded if that makes a difference.

    By RFC 6749 section 2.3.1 they are form-encoded before they are put into the header. Most clients do not do that,
    and decoding would change a secret with + or %.
    """
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    in_form = "client_secret" in parameters
    if scheme and in_form:
        raise _InvalidTokenRequest(
            "invalid_request", "The credentials are given twice, in the header and in the form.", code="AT-657"
        )
    if in_form and request.method == "POST":
        return [(parameters.get("client_id", ""), parameters["client_secret"])]
    if scheme.lower() != "basic":
        raise _InvalidTokenRequest(
            "invalid_client",
            "The client id and the client secret are missing: send them as HTTP Basic or in the form.",
            code="AT-658",
        )
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:  # not ASCII, base64 or UTF-8
        raise _InvalidTokenRequest(
            "invalid_client", "The header Authorization is not HTTP Basic.", code="AT-659"
        ) from None
    pairs = dict.fromkeys([(client_id, secret), (unquote_plus(client_id), unquote_plus(secret))])
    named = parameters.get("client_id")
    if named is not None and all(named != client_id for client_id, _ in pairs):
        raise _InvalidTokenRequest(
            "invalid_request", "The form and the header Authorization have different client ids.", code="AT-660"
        )
    return list(pairs)
