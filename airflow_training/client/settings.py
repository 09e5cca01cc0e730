"""The settings of a client: a training service, its OAuth2 server, credentials, TLS and proxies."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)
from requests import Session
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy, should_bypass_proxies

from airflow_training.exceptions import InvalidConnection

TokenAuthMethod = Literal["client_secret_basic", "client_secret_post"]
TokenHttpMethod = Literal["POST", "GET"]


@dataclass(frozen=True)
class ClientSettings:
    """The settings of a client of one training service.

    Attributes:
        base_url: The job API without its path: `https://api.example.com`.
        client_id: OAuth2 client id.
        client_secret: OAuth2 client secret; never shown by `repr`.
        token_url: OAuth2 token endpoint; `{base_url}/oauth/token` if empty.
        token_auth_method: How the credentials are sent, as named in RFC 8414: HTTP Basic, or in the form.
        token_http_method: The method of the token request. GET requires HTTP Basic: a secret must not be in a URL.
        token_scope: The scopes to request, separated by spaces; the server's default if empty.
        token_audience: The `audience` of the token request, required by some servers.
        token_headers: Headers of the token request, for an OAuth2 server on a host of its own.
        api_version: The version in the API's paths.
        headers: Headers of every request to the host of the job API, including its token endpoint and storage.
        verify: Whether certificates are verified; or the path of a file with the certificates to trust.
        cert: A client certificate, as `requests` takes it: a path, or a pair of paths (certificate, key).
        proxies: Proxies by scheme, as `requests` takes them; `no_proxy` lists hosts without a proxy.
        trust_env: Whether the environment's proxies are used if `proxies` has none.
        timeout: Seconds to wait for a reply.

    Raises:
        InvalidConnection: A URL is not valid; or a GET is to carry the credentials in a form, which means in its URL.
    """

    base_url: str
    client_id: str
    client_secret: str = field(repr=False)
    token_url: str = ""
    token_auth_method: TokenAuthMethod = "client_secret_basic"
    token_http_method: TokenHttpMethod = "POST"
    token_scope: str = ""
    token_audience: str = ""
    token_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    api_version: str = "v2"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    cert: str | tuple[str, str] | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    trust_env: bool = True
    timeout: float = 60.0

    def __post_init__(self) -> None:
        _check_url("Host, schema and port", self.base_url)
        _check_url("oauth_token_url", self.token_url)
        if (self.token_auth_method, self.token_http_method) == ("client_secret_post", "GET"):
            raise InvalidConnection(
                "oauth_http_method GET would put the client secret into a URL: use it with oauth_auth_method"
                " client_secret_basic.",
                code="AT-106",
            )

    @property
    def token_endpoint(self) -> str:
        """The URL of the token endpoint."""
        return self.token_url or f"{self.base_url.rstrip('/')}/oauth/token"

    @property
    def token_server(self) -> str:
        """The server of the token endpoint, for messages: Airflow masks the URL, since its field's name has "token"."""
        url = urlsplit(self.token_endpoint)
        return f"{url.scheme}://{url.hostname or ''}" + (f":{url.port}" if url.port else "")

    @property
    def api_url(self) -> str:
        """The base URL of the API's paths."""
        return f"{self.base_url.rstrip('/')}/api/{self.api_version}"

    def headers_for(self, url: str) -> Mapping[str, str]:
        """Return the headers of a request; other hosts do not get those of the job API, which may be secret."""
        return self.headers if urlsplit(url).hostname == urlsplit(self.base_url).hostname else {}

    def proxy_for(self, url: str) -> str | None:
        """Return the proxy of a request with its scheme, chosen as by `requests`; None without one.

        Raises:
            InvalidConnection: It is not an HTTP proxy.
        """
        proxies = dict(self.proxies)
        no_proxy = proxies.pop("no_proxy", None)
        if no_proxy and should_bypass_proxies(url, no_proxy):
            return None
        proxy = select_proxy(url, proxies)
        if not proxy and self.trust_env:
            proxy = select_proxy(url, get_environ_proxies(url))
        if not proxy:
            return None
        proxy = _with_scheme(proxy)
        if not proxy.startswith(("http://", "https://")):
            raise InvalidConnection(
                f"The proxy for {urlsplit(url).hostname} is a {urlsplit(proxy).scheme}:// one, which is not supported:"
                " use an http:// proxy.",
                code="AT-113",
            )
        return proxy

    def ssl_context(self) -> ssl.SSLContext:
        """Return the TLS settings of `verify` and `cert`.

        Raises:
            InvalidConnection: The certificates cannot be read.
        """
        trusted = self.verify if isinstance(self.verify, str) else None
        folder = trusted is not None and Path(trusted).is_dir()
        try:
            context = ssl.create_default_context(cafile=None if folder else trusted, capath=trusted if folder else None)
            if self.cert:
                context.load_cert_chain(*([self.cert] if isinstance(self.cert, str) else self.cert))
        except OSError as error:
            raise unreadable_certificates(error) from error
        if self.verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _check_url(name: str, url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError:
        # Neither the cause nor the URL is shown: it may have a password.
        raise InvalidConnection(
            f"{name} of the connection is not a valid URL such as https://training.example.com:8443.",
            code="AT-108",
        ) from None


def unreadable_certificates(error: OSError) -> InvalidConnection:
    """The error for certificates that cannot be read."""
    return InvalidConnection(
        f"The certificates named by `verify` or `cert` of the connection cannot be read: {error.strerror or error}.",
        code="AT-107",
    )


def _text(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _document(value: Any) -> Any:
    """Parse a list or an object that a URI or a secrets backend stores as JSON text."""
    value = _text(value)
    if isinstance(value, str) and value[:1] in ("[", "{"):
        return json.loads(value)
    return value


Flag = Annotated[bool, BeforeValidator(_text), Field(description="must be true or false")]
"""A boolean, or a word for it: `yes`, `off`, `0`."""


def _cert(value: Any) -> Any:
    value = _document(value)
    if isinstance(value, list) and len(value) == 1:
        return value[0]
    return value


def _proxies(value: Any) -> Any:
    value = _document(value)
    if isinstance(value, str):
        return {"http": value, "https": value}
    if isinstance(value, dict):
        given = {name: url for name, url in value.items() if url not in (None, "")}
        return given | {"no_proxy": _joined(given["no_proxy"], ",")} if "no_proxy" in given else given
    return value


def _known_schemes(proxies: dict[str, str]) -> dict[str, str]:
    for name, url in proxies.items():
        if name.partition("://")[0] not in ("http", "https", "all", "ftp", "no_proxy"):
            raise ValueError(name)
        # Raises for an invalid port.
        _ = name == "no_proxy" or urlsplit(_with_scheme(url)).port
    return proxies


def _with_scheme(proxy: str) -> str:
    return str(prepend_scheme_if_needed(proxy, "http"))  # type: ignore[no-untyped-call]


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError(value)
    return value


def _scopes(value: Any) -> Any:
    return _joined(_document(value), " ")


def _joined(value: Any, separator: str) -> Any:
    return separator.join(map(str, value)) if isinstance(value, list) else value


def _check_port(url: str) -> str:
    # Raises for an invalid port.
    _ = urlsplit(url).port
    return url


Url = Annotated[str, AfterValidator(_check_port)]
"""A URL with a valid port."""

_FilePath = Annotated[str, Field(min_length=1)]


class ConnectionFields(BaseModel):
    """The fields that a connection of Airflow and a profile of the command line share.

    In a URI, a form and a profile file all values are text; JSON has other types as well. The description of a field
    completes the sentence about an invalid value.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    oauth_token_url: Url = Field(
        "", pattern=r"^https?://[^\s@]+$", description="must be a URL with http:// or https://"
    )
    oauth_auth_method: TokenAuthMethod = Field(
        "client_secret_basic", description="must be client_secret_basic or client_secret_post"
    )
    oauth_http_method: TokenHttpMethod = Field("POST", description="must be POST or GET")
    oauth_scope: Annotated[str, BeforeValidator(_scopes)] = Field(
        "", description="must be text, scopes separated by spaces"
    )
    oauth_audience: str = Field("", description="must be text")
    api_version: str = Field("v2", pattern=r"^[\w.-]+$", description="must be text such as v2")
    verify: Flag | Annotated[_FilePath, BeforeValidator(_text)] = Field(
        True,
        union_mode="left_to_right",
        description="must be true, false, or the path of a file or folder with the certificates to trust",
    )
    cert: Annotated[_FilePath | tuple[_FilePath, _FilePath] | None, BeforeValidator(_cert)] = Field(
        None, description="must be the path of a file, or a list of two: certificate and key"
    )
    proxies: Annotated[dict[str, str], BeforeValidator(_proxies), AfterValidator(_known_schemes)] = Field(
        {}, description="must be a URL such as http://proxy:3128, or an object of schemes and URLs"
    )
    timeout: Annotated[float, BeforeValidator(_number)] = Field(
        60.0, gt=0, allow_inf_nan=False, description="must be a number of seconds"
    )
    trust_env: Flag = True

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        """Drop empty values: a form submits every field."""
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: value for name, value in values.items() if name not in optional or _text(value) not in (None, "")}

    def settings(self, base_url: str, client_id: str, client_secret: str, **more: Any) -> ClientSettings:
        """Return the settings of a client, with the certificates set for `requests` in the environment."""
        session = Session()
        session.trust_env = self.trust_env
        found = session.merge_environment_settings(base_url, {}, stream=None, verify=self.verify, cert=None)
        return ClientSettings(
            base_url=base_url,
            client_id=client_id,
            client_secret=client_secret,
            token_url=self.oauth_token_url,
            token_auth_method=self.oauth_auth_method,
            token_http_method=self.oauth_http_method,
            token_scope=self.oauth_scope,
            token_audience=self.oauth_audience,
            api_version=self.api_version,
            verify=found["verify"] if found["verify"] is not None else True,
            cert=self.cert,
            proxies=self.proxies,
            trust_env=self.trust_env,
            timeout=self.timeout,
            **more,
        )
