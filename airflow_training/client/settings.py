"""Where a training service is and how it wants to be spoken to."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from airflow_training.exceptions import InvalidConnection

TokenAuthMethod = Literal["client_secret_basic", "client_secret_post"]
TokenHttpMethod = Literal["POST", "GET"]


@dataclass(frozen=True)
class ClientSettings:
    """Everything a client needs to know of one training service and its OAuth2 server.

    Attributes:
        base_url: The job API without its path: `https://api.example.com`.
        client_id: OAuth2 client id.
        client_secret: OAuth2 client secret; never shown by `repr`.
        token_url: OAuth2 token endpoint; `{base_url}/oauth/token` where it is empty.
        token_auth_method: How the credentials are sent, by their names in RFC 8414: as HTTP Basic, or in the
            form.
        token_http_method: The request that fetches the token. With GET the credentials are always Basic, since
            a URL is no place for a secret.
        api_version: The version in the API's paths.
        headers: Headers of every request.
        verify: Whether certificates are checked; or the path of a file of certificates to trust.
        cert: A client certificate, as `requests` takes it: a path, or a pair of paths (certificate, key).
        proxies: Proxies by scheme, as `requests` takes them.
        timeout: Seconds to wait for a reply.

    Raises:
        InvalidConnection: An address cannot be read; or a GET was asked to carry the credentials in a form, which is
            to say in its URL.
    """

    base_url: str
    client_id: str
    client_secret: str = field(repr=False)
    token_url: str = ""
    token_auth_method: TokenAuthMethod = "client_secret_basic"
    token_http_method: TokenHttpMethod = "POST"
    api_version: str = "v2"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    verify: bool | str = True
    cert: str | tuple[str, str] | None = None
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 60.0

    def __post_init__(self) -> None:
        _check_address("Host, schema and port", self.base_url)
        _check_address("oauth_token_url", self.token_url)
        if (self.token_auth_method, self.token_http_method) == ("client_secret_post", "GET"):
            raise InvalidConnection(
                "oauth_http_method GET would put the client secret into a URL: use it with oauth_auth_method"
                " client_secret_basic.",
                code="AT-106",
            )

    @property
    def token_endpoint(self) -> str:
        """The URL that tokens come from."""
        return self.token_url or f"{self.base_url.rstrip('/')}/oauth/token"

    @property
    def token_server(self) -> str:
        """The server of that URL, for messages: Airflow masks the whole URL, since "token" is in its field's name."""
        url = urlsplit(self.token_endpoint)
        return f"{url.scheme}://{url.hostname or ''}" + (f":{url.port}" if url.port else "")

    @property
    def api_url(self) -> str:
        """The URL that the API's paths are appended to."""
        return f"{self.base_url.rstrip('/')}/api/{self.api_version}"

    def ssl_context(self) -> ssl.SSLContext:
        """TLS as `verify` and `cert` ask for.

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


def _check_address(name: str, url: str) -> None:
    try:
        _ = urlsplit(url).port
    except ValueError:
        # Neither the cause nor the address is shown: there may be a password in it.
        raise InvalidConnection(
            f"{name} of the connection cannot be read as an address such as https://training.example.com:8443.",
            code="AT-108",
        ) from None


def unreadable_certificates(error: OSError) -> InvalidConnection:
    """The error where certificates cannot be read."""
    return InvalidConnection(
        f"The certificates named by `verify` or `cert` of the connection cannot be read: {error.strerror or error}.",
        code="AT-107",
    )
