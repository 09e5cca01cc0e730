"""The Airflow connection, as users of the HTTP provider know it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_training.client.settings import ClientSettings
from airflow_training.exceptions import InvalidConnection
from airflow_training.hooks.training import TrainingHook

MINIMAL: dict[str, Any] = {
    "conn_type": "training",
    "host": "training.example.com",
    "login": "client",
    "password": "s3cr3t",
}


def connect(monkeypatch: pytest.MonkeyPatch, **fields: Any) -> TrainingHook:
    monkeypatch.setenv("AIRFLOW_CONN_TRAINING_TEST", json.dumps({**MINIMAL, **fields}))
    return TrainingHook("training_test")


def settings_of(hook: TrainingHook) -> ClientSettings:
    return hook.client().settings


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        ({}, "http://training.example.com"),
        ({"schema": "https"}, "https://training.example.com"),
        ({"schema": "https", "port": 8443}, "https://training.example.com:8443"),
        ({"host": "https://training.example.com"}, "https://training.example.com"),
    ],
)
def test_host_schema_and_port_mean_what_they_mean_to_the_http_provider(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], url: str
) -> None:
    assert settings_of(connect(monkeypatch, **fields)).base_url == url


def test_the_extra_holds_headers_certificates_proxies_and_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {
        "X-Team": "vision",
        "verify": "/etc/ssl/own-ca.pem",
        "cert": "/etc/ssl/client.pem",
        "proxies": {"https": "http://proxy:3128"},
        "timeout": 7,
    }

    settings = settings_of(connect(monkeypatch, schema="https", extra=extra))

    assert settings.headers == {"X-Team": "vision"}
    assert settings.verify == "/etc/ssl/own-ca.pem"
    assert settings.cert == "/etc/ssl/client.pem"
    assert settings.proxies["https"] == "http://proxy:3128"
    assert settings.timeout == 7


def test_the_environments_proxy_and_certificates_count_as_for_every_http_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/company.pem")

    settings = settings_of(connect(monkeypatch, schema="https"))

    assert settings.proxies["https"] == "http://proxy:3128"
    assert settings.verify == "/etc/ssl/company.pem"


def test_the_extra_says_how_tokens_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {
        "oauth_token_url": "https://login.example.com/oauth/token",
        "oauth_auth_method": "client_secret_post",
        "oauth_http_method": "POST",
        "api_version": "v3",
    }

    settings = settings_of(connect(monkeypatch, extra=extra))

    assert settings.token_endpoint == "https://login.example.com/oauth/token"
    assert settings.token_auth_method == "client_secret_post"
    assert settings.api_url == "http://training.example.com/api/v3"
    assert settings.headers == {}


def test_a_minimal_connection_fetches_tokens_from_the_job_api_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(connect(monkeypatch)).token_endpoint == "http://training.example.com/oauth/token"


def test_a_connection_as_uri_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_TRAINING_TEST", "training://client:s3cr3t@training.example.com:8443/https")

    settings = settings_of(TrainingHook("training_test"))

    assert (settings.base_url, settings.client_id) == ("https://training.example.com:8443", "client")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"host": ""}, "connection 'training_test' has no host"),
        ({"login": None, "password": None}, r"no login \(the OAuth2 client id\), no password"),
        ({"extra": {"oauth_auth_method": "magic"}}, "oauth_auth_method .* must be client_secret_basic or"),
        (
            {"extra": {"oauth_http_method": "GET", "oauth_auth_method": "client_secret_post"}},
            "GET would put the client secret into a URL",
        ),
        ({"extra": {"timeout": "soon"}}, "timeout .* must be a number of seconds, not 'soon'"),
    ],
)
def test_a_connection_that_cannot_work_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConnection, match=message) as raised:
        connect(monkeypatch, **fields).client()
    assert "s3cr3t" not in str(raised.value)


def test_people_may_have_a_page_of_their_own_for_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    page = connect(monkeypatch, extra={"job_page_url": "https://jobs.example.com/show/{job_id}"}).job_page("a-job")
    none = connect(monkeypatch).job_page("a-job")

    assert page == "https://jobs.example.com/show/a-job"
    assert none is None, "it is the page of the task then"


def test_a_page_that_no_browser_would_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidConnection, match="must begin with http"):
        connect(monkeypatch, extra={"job_page_url": "javascript:alert(1)"}).job_page("a-job")


class TestRealService:
    """The same hook on a service that runs."""

    @pytest.fixture
    def hook(self, monkeypatch: pytest.MonkeyPatch, settings: ClientSettings) -> TrainingHook:
        return self.connected(monkeypatch, settings)

    @staticmethod
    def connected(monkeypatch: pytest.MonkeyPatch, settings: ClientSettings) -> TrainingHook:
        url = urlsplit(settings.base_url)
        return connect(
            monkeypatch,
            host=url.hostname,
            port=url.port,
            login=settings.client_id,
            password=settings.client_secret,
        )

    def test_any_request_of_the_job_api_can_be_made_with_a_token(self, hook: TrainingHook) -> None:
        assert "jobs" in hook.run("api/v2/jobs").json()

    def test_the_connection_test_names_what_works(self, hook: TrainingHook) -> None:
        works, message = hook.test_connection()

        assert works, message
        assert [step.split(":")[0] for step in message.split("; ")] == ["Connection", "Token", "Job API", "Storage"]

    def test_the_connection_test_names_what_fails(
        self, monkeypatch: pytest.MonkeyPatch, settings: ClientSettings
    ) -> None:
        works, message = self.connected(monkeypatch, replace(settings, client_secret="wrong")).test_connection()

        assert not works
        assert message.startswith("Token: The OAuth2 server at ")
        assert "refused the client 'tests'" in message
