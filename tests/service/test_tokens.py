"""Access tokens, and what the API does without one."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import httpx
import jwt
import pytest

from airflow_training.service.tokens import Tokens, signing_key
from tests.service.support import RunningService, Tenant

GRANT = {"grant_type": "client_credentials"}


@pytest.mark.parametrize("form", ["get", "post with basic", "post with the form"])
def test_every_form_of_token_request_works(tenant: Tenant, form: str) -> None:
    service, client = tenant.service, tenant.credentials
    url, basic = f"{service.url}/oauth/token", (client.client_id, client.client_secret)
    if form == "get":
        reply = httpx.get(url, params=GRANT, auth=basic)
    elif form == "post with basic":
        reply = httpx.post(url, data=GRANT | {"client_id": client.client_id}, auth=basic)
    else:
        reply = httpx.post(url, data=GRANT | {"client_id": client.client_id, "client_secret": client.client_secret})
    assert reply.status_code == 200, reply.text
    assert reply.headers["Cache-Control"] == "no-store"
    token = reply.json()
    assert (token["token_type"], token["expires_in"]) == ("bearer", 12 * 60 * 60)
    claims = jwt.decode(token["access_token"], options={"verify_signature": False})
    assert (claims["sub"], claims["tenant"]) == (client.client_id, tenant.name)
    assert claims["exp"] - claims["iat"] == 12 * 60 * 60
    jobs = httpx.get(f"{service.url}/api/v2/jobs", headers={"Authorization": f"Bearer {token['access_token']}"})
    assert jobs.status_code == 200


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        ({"data": GRANT, "auth": ("nobody", "x")}, 401, "invalid_client"),
        ({"data": GRANT}, 401, "invalid_client"),
        ({"data": GRANT | {"client_id": "nobody", "client_secret": "x"}}, 401, "invalid_client"),
        ({"data": GRANT, "headers": {"Authorization": "Basic ?"}}, 401, "invalid_client"),
        ({"data": GRANT, "headers": {"Authorization": "Bearer x"}}, 401, "invalid_client"),
        ({"auth": ("nobody", "x")}, 400, "invalid_request"),
        ({"data": GRANT | {"client_secret": "x"}, "auth": ("nobody", "x")}, 400, "invalid_request"),
        ({"content": b"grant_type=a&grant_type=b", "auth": ("nobody", "x")}, 400, "invalid_request"),
        ({"content": b"\xff\xfe", "auth": ("nobody", "x")}, 400, "invalid_request"),
        ({"data": {"grant_type": "password"}, "auth": ("nobody", "x")}, 400, "unsupported_grant_type"),
    ],
)
def test_a_refused_token_request_says_why(
    service: RunningService, request_: dict[str, Any], status: int, error: str
) -> None:
    reply = httpx.post(f"{service.url}/oauth/token", **request_)
    assert (reply.status_code, reply.json()["error"]) == (status, error)
    assert reply.json()["error_description"]
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers.get("WWW-Authenticate") == ("Basic" if status == 401 else None)


def test_a_wrong_secret_is_refused(tenant: Tenant) -> None:
    reply = httpx.get(f"{tenant.service.url}/oauth/token", params=GRANT, auth=(tenant.credentials.client_id, "wrong"))
    assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize("wrong", ["none", "nonsense", "expired", "another key", "basic"])
def test_a_request_without_a_valid_token_is_refused(service: RunningService, wrong: str) -> None:
    key = signing_key(service.files.signing_key)
    header = {
        "none": "",
        "nonsense": "Bearer x.y.z",
        "expired": f"Bearer {Tokens(key, -10).issue('me', 'tenant')}",
        "another key": f"Bearer {Tokens('k' * 64, 60).issue('me', 'tenant')}",
        "basic": "Basic bWU6bWU=",
    }[wrong]
    for method, path in (("GET", "jobs"), ("POST", "jobs/a"), ("GET", "jobs/a/logs"), ("POST", "storage")):
        reply = httpx.request(method, f"{service.url}/api/v2/{path}", headers={"Authorization": header})
        assert reply.status_code == 401
        assert reply.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
        assert reply.json()["error"]["code"] == "401"


def test_a_client_is_added_by_command_and_its_secret_is_kept_as_a_hash_only(service: RunningService) -> None:
    command = [sys.executable, "-m", "airflow_training.cli.main", "clients", "add", "team-a"]
    command += ["--tenant", "team", "--data", str(service.data), "--json"]
    added = subprocess.run(command, capture_output=True, text=True, check=True)
    secret = added.stdout.split('"client_secret": "')[1].split('"')[0]
    reply = httpx.get(f"{service.url}/oauth/token", params=GRANT, auth=("team-a", secret))
    assert reply.status_code == 200
    files = list(service.data.glob("service.db*"))
    assert files
    assert not [file for file in files if secret.encode() in file.read_bytes()]
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "The client 'team-a' is there already: choose another id.\n"


def test_a_tenant_is_no_path(service: RunningService) -> None:
    command = [sys.executable, "-m", "airflow_training.cli.main", "clients", "add", "--tenant", "../x"]
    command += ["--data", str(service.data)]
    added = subprocess.run(command, capture_output=True, text=True, check=False)
    assert added.returncode == 1
    assert added.stderr.startswith("The tenant must be ")


def test_keys_are_readable_by_their_owner_only(tenant: Tenant) -> None:
    tenant.storage()
    files = tenant.service.files
    for file in (files.signing_key, files.storage / "keys.json"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert files.root.stat().st_mode & 0o777 == 0o700
