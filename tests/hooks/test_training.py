"""The Airflow connection, compatible with the HTTP provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import Mock
from urllib.parse import urlsplit

import pytest
from airflow.sdk.configuration import clear_secrets_backends_cache
from airflow.secrets import BaseSecretsBackend

from airflow_training.client.retry import RetryPolicy
from airflow_training.client.settings import ClientSettings
from airflow_training.exceptions import InvalidConnection, ServiceUnavailable, TrainingError
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
def test_host_schema_and_port_have_the_meaning_of_the_http_provider(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], url: str
) -> None:
    assert settings_of(connect(monkeypatch, **fields)).base_url == url


def test_the_extra_has_headers_certificates_proxies_and_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
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

    assert settings.proxy_for(settings.api_url) == "http://proxy:3128"
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
        ({"extra": {"oauth_auth_method": "magic"}}, "oauth_auth_method must be client_secret_basic or"),
        (
            {"extra": {"oauth_http_method": "GET", "oauth_auth_method": "client_secret_post"}},
            "GET would put the client secret into a URL",
        ),
        ({"extra": {"timeout": "soon"}}, "timeout must be a number of seconds, not 'soon'"),
    ],
)
def test_an_incomplete_connection_is_refused_with_a_message(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidConnection, match=message) as raised:
        connect(monkeypatch, **fields).client()
    assert "s3cr3t" not in str(raised.value)


# A URI or a secrets backend has text values, JSON also other types.
FORMS: list[tuple[Any, dict[str, Any]]] = [
    ({"verify": "false"}, {"verify": False}),
    ({"verify": "False "}, {"verify": False}),
    ({"verify": 0}, {"verify": False}),
    ({"verify_ssl": "no"}, {"verify": False}),
    ({"verify": "true"}, {"verify": True}),
    ({"verify": ""}, {"verify": True}),
    ({"verify": None}, {"verify": True}),
    ({"verify": "/etc/ssl/own.pem"}, {"verify": "/etc/ssl/own.pem"}),
    ({"cert": "/client.pem"}, {"cert": "/client.pem"}),
    ({"cert": ["/client.pem", "/key.pem"]}, {"cert": ("/client.pem", "/key.pem")}),
    ({"cert": '["/client.pem", "/key.pem"]'}, {"cert": ("/client.pem", "/key.pem")}),
    ({"cert": ["/client.pem"]}, {"cert": "/client.pem"}),
    ({"timeout": "7.5"}, {"timeout": 7.5}),
    ({"timeout": " "}, {"timeout": 60}),
    ({"trust_env": "false"}, {"trust_env": False}),
    ({"oauth_scope": "api://training/.default"}, {"token_scope": "api://training/.default"}),
    ({"oauth_scope": ["jobs:read", "jobs:write"]}, {"token_scope": "jobs:read jobs:write"}),
    ({"oauth_audience": "https://training.example.com"}, {"token_audience": "https://training.example.com"}),
    ({"oauth_headers": '{"X-Key": "k"}'}, {"token_headers": {"X-Key": "k"}, "headers": {}}),
    ({"X-Team": "vision", "X-Number": 5}, {"headers": {"X-Team": "vision", "X-Number": "5"}}),
    ({"Api-Version": "2", "Timeout-Ms": "5"}, {"headers": {"Api-Version": "2", "Timeout-Ms": "5"}}),
]


@pytest.mark.parametrize(("extra", "meaning"), FORMS, ids=str)
def test_a_field_has_one_meaning_in_every_form(
    monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any], meaning: dict[str, Any]
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)

    settings = settings_of(connect(monkeypatch, extra=extra))

    assert {name: getattr(settings, name) for name in meaning} == meaning


@pytest.mark.parametrize(
    ("proxies", "by_http", "by_https"),
    [
        ("http://127.0.0.1:3128", "http://127.0.0.1:3128", "http://127.0.0.1:3128"),
        ("127.0.0.1:3128", "http://127.0.0.1:3128", "http://127.0.0.1:3128"),
        ({"http": "http://a:1"}, "http://a:1", None),
        ('{"http": "http://a:1", "https": "http://b:1"}', "http://a:1", "http://b:1"),
        ({"all": "http://a:1", "http": None}, "http://a:1", "http://a:1"),
        ({"https://training.example.com": "http://a:1"}, None, "http://a:1"),
        ({"http": "http://a:1", "https": "http://a:1", "no_proxy": "training.example.com"}, None, None),
        ({"http": "http://a:1", "https": "http://a:1", "no_proxy": ["other.example"]}, "http://a:1", "http://a:1"),
    ],
)
@pytest.mark.parametrize("name", ["proxies", "proxy"])
def test_a_proxy_has_one_meaning_in_every_form(
    monkeypatch: pytest.MonkeyPatch, name: str, proxies: Any, by_http: str | None, by_https: str | None
) -> None:
    settings = settings_of(connect(monkeypatch, extra={name: proxies, "trust_env": False}))

    assert settings.proxy_for("http://training.example.com/api") == by_http
    assert settings.proxy_for("https://training.example.com/api") == by_https


def test_the_environments_exceptions_count_for_each_host(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "training.example.com")
    extra = {"oauth_token_url": "https://login.example.com/token"}

    settings = settings_of(connect(monkeypatch, schema="https", extra=extra))
    untrusted = settings_of(connect(monkeypatch, schema="https", extra={**extra, "trust_env": "false"}))

    assert settings.proxy_for(settings.api_url) is None
    assert settings.proxy_for(settings.token_endpoint) == "http://proxy:3128"
    assert untrusted.proxy_for(untrusted.token_endpoint) is None


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"verify": ["/a.pem"]}, r"verify must be true, false, or the path of a file .*, not \['/a.pem'\]"),
        ({"cert": {"cert": "/a.pem"}}, "cert must be the path of a file, or a list of two"),
        ({"cert": ["/a", "/b", "/c"]}, "cert must be the path of a file, or a list of two"),
        ({"proxies": "{'http': 'http://me:s3cr3t@proxy'}"}, "proxies must be a URL such as"),
        ({"proxies": {"htpp": "http://me:s3cr3t@proxy"}}, "proxies must be a URL such as"),
        ({"proxies": "http://me:s3cr3t@proxy:port"}, "proxies must be a URL such as"),
        ({"proxies": "socks5://me:s3cr3t@proxy:1"}, r"is a socks5:// one, which is not supported"),
        ({"timeout": True}, "timeout must be a number of seconds, not True"),
        ({"timeout": [3, 30]}, "timeout must be a number of seconds"),
        ({"timeout": "inf"}, "timeout must be a number of seconds"),
        ({"trust_env": "perhaps"}, "trust_env must be true or false, not 'perhaps'"),
        ({"timeout": "soon", "verify": 5}, "verify must be .*; timeout must be"),
        ({"srv_lookup": "true"}, "srv_lookup .* is not supported"),
        ({"oauth_token_url": "login.example.com"}, "oauth_token_url must be a URL with"),
        ({"oauth_scop": "a"}, r"'oauth_scop' is unknown \(did you mean oauth_scope\?\)"),
        ({"oauth-scope": "a"}, r"'oauth-scope' is unknown \(did you mean oauth_scope\?\)"),
        ({"oauth_tenant": "a"}, r"'oauth_tenant' is unknown \(the fields are oauth_audience, "),
        ({"scope": "a"}, r"'scope' is unknown \(did you mean oauth_scope\?\)"),
        ({"audience": "a"}, r"'audience' is unknown \(did you mean oauth_audience\?\)"),
        ({"token_url": "a"}, r"'token_url' is unknown \(did you mean oauth_token_url\?\)"),
        ({"Verify": "false"}, r"'Verify' is unknown \(did you mean verify\?\)"),
        ({"timout": 5}, r"'timout' is unknown \(did you mean timeout\?\)"),
        ({"headers": {"X-Key": "s3cr3t"}}, r"'headers' is unknown \(each header is a separate name"),
        ({"X-Key": {"a": "s3cr3t"}}, "'X-Key' is a header, whose value must be one line"),
        ({"X-Key": "s3cr3t\nX-Other: a"}, "'X-Key' is a header, whose value must be one line"),
        ({"X-Key": "s3cr3t…"}, "'X-Key' is a header, whose value must be one line"),
        ({"my key": "s3cr3t"}, "'my key' is neither a field nor a valid header name"),
        ({"Authorization": "Basic s3cr3t"}, "Authorization is reserved for the access token"),
        ({"oauth_headers": {"oauth_scope": "a"}}, "'oauth_scope' is unknown"),
        ("verify=false", "is not a JSON object"),
        ("[1]", "is not a JSON object"),
        ("null", "is not a JSON object"),
    ],
    ids=str,
)
def test_an_invalid_extra_is_refused_with_a_message(monkeypatch: pytest.MonkeyPatch, extra: Any, message: str) -> None:
    with pytest.raises(InvalidConnection, match=message) as raised:
        connect(monkeypatch, extra=extra).client()
    assert "s3cr3t" not in str(raised.value)


@pytest.mark.parametrize("extra", ["", "{}", " {} "])
def test_an_extra_may_be_empty(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    assert settings_of(connect(monkeypatch, extra=extra)).headers == {}


def test_a_uri_has_text_values_with_the_same_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    query = "verify=false&proxies=http%3A%2F%2F127.0.0.1%3A3128&timeout=5&X-Team=vision&oauth_scope=a+b"
    monkeypatch.setenv("AIRFLOW_CONN_TRAINING_TEST", f"training://client:s3cr3t@training.example.com/https?{query}")

    settings = settings_of(TrainingHook("training_test"))

    assert (settings.verify, settings.timeout, settings.headers) == (False, 5, {"X-Team": "vision"})
    assert settings.proxy_for(settings.token_endpoint) == "http://127.0.0.1:3128"
    assert settings.token_scope == "a b"


def test_run_reads_the_extra_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {
        "verify": "false",
        "proxies": "http://127.0.0.1:3128",
        "timeout": "5",
        "allow_redirects": "false",
        "oauth_scope": "a",
        "X-Team": "vision",
    }
    hook = connect(monkeypatch, extra=extra)

    session = hook.get_conn()

    assert session.verify is False
    assert session.proxies["http"] == session.proxies["https"] == "http://127.0.0.1:3128"
    assert (hook.merged_extra["timeout"], hook.merged_extra["allow_redirects"]) == (5, False)
    assert session.headers["X-Team"] == "vision"
    assert "oauth_scope" not in session.headers


class FailingBackend(BaseSecretsBackend):
    """A secrets backend that fails several times before it responds."""

    failures = 0
    connection: str | None = None

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        """Fail, or respond."""
        kind = type(self)
        if kind.failures:
            kind.failures -= 1
            raise OSError("vault: 503, token s3cr3t")
        return kind.connection


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FailingBackend]]:
    """The secrets backend of Airflow, as an administrator configures it."""
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", f"{FailingBackend.__module__}.FailingBackend")
    monkeypatch.delenv("AIRFLOW_CONN_TRAINING_TEST", raising=False)
    monkeypatch.setattr(FailingBackend, "failures", 0)
    monkeypatch.setattr(FailingBackend, "connection", json.dumps(MINIMAL))
    clear_secrets_backends_cache()
    yield FailingBackend
    clear_secrets_backends_cache()


class TestSecretsBackend:
    """A backend that fails temporarily: Airflow ignores its error and reports a missing connection."""

    PATIENT = RetryPolicy(budget=30, first=0.01)
    IMPATIENT = RetryPolicy(budget=0, first=0.01)

    def test_is_asked_again(self, backend: type[FailingBackend]) -> None:
        backend.failures = 5

        assert TrainingHook("training_test").client(policy=self.PATIENT).settings.client_id == "client"

    @pytest.mark.anyio
    async def test_is_asked_again_on_every_event_loop(self, backend: type[FailingBackend]) -> None:
        hook = TrainingHook("training_test")
        for connect in (hook.aclient, hook.connect):
            backend.failures = 5

            assert (await connect(policy=self.PATIENT)).settings.client_id == "client"

    def test_fails_the_try_and_not_the_task_where_it_goes_on(self, backend: type[FailingBackend]) -> None:
        backend.failures = 1000

        with pytest.raises(ServiceUnavailable, match="'training_test' could not be read: ") as raised:
            TrainingHook("training_test").client(policy=self.IMPATIENT)

        assert raised.value.retryable
        assert "s3cr3t" not in str(raised.value)

    def test_that_is_none_is_not_waited_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_TRAINING_TEST", raising=False)

        with pytest.raises(InvalidConnection, match="There is no connection") as raised:
            TrainingHook("training_test").client(policy=RetryPolicy(budget=3600, first=3600))

        assert not raised.value.retryable

    @pytest.mark.anyio
    async def test_a_connection_that_a_job_was_submitted_over_is_looked_for_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_TRAINING_TEST", raising=False)
        hook = TrainingHook("training_test")

        for read in (hook.aclient(policy=self.IMPATIENT), hook.connect(policy=self.IMPATIENT, known=True)):
            with pytest.raises(ServiceUnavailable, match="Check that it exists"):
                await read

    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            (RuntimeError("the supervisor is gone, s3cr3t"), ServiceUnavailable),
            (PermissionError("denied, s3cr3t"), InvalidConnection),
        ],
    )
    def test_what_may_heal_is_told_from_what_does_not(
        self, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[TrainingError]
    ) -> None:
        monkeypatch.setattr(TrainingHook, "get_connection", Mock(side_effect=error))

        with pytest.raises(expected) as raised:
            TrainingHook("training_test").client(policy=self.IMPATIENT)

        assert "s3cr3t" not in str(raised.value)


def test_a_connection_may_name_another_page_for_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    page = connect(monkeypatch, extra={"job_page_url": "https://jobs.example.com/show/{job_id}"}).job_page("a-job")
    none = connect(monkeypatch).job_page("a-job")

    assert page == "https://jobs.example.com/show/a-job"
    assert none is None, "it is the page of the task then"


def test_a_page_that_no_browser_would_open_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidConnection, match="must begin with http"):
        connect(monkeypatch, extra={"job_page_url": "javascript:alert(1)"}).job_page("a-job")


class TestRealService:
    """The same hook with a running service."""

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
