"""Credentials of commands: from the environment, a profile or Airflow, and never where others can read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_training.client.settings import ClientSettings
from tests.cli.commands import Command

Write = Callable[..., Path]


@pytest.fixture
def write(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Writes the profile file, with no service in the environment."""
    for name in ("URL", "CLIENT_ID", "CLIENT_SECRET"):
        monkeypatch.delenv(f"TRAINING_{name}")
    folder = tmp_path / "config" / "airflow-training"
    folder.mkdir(parents=True)

    def write(content: str, mode: int = 0o600) -> Path:
        file = folder / "profiles.ini"
        file.write_text(content)
        file.chmod(mode)
        return file

    return write


def profile(settings: ClientSettings, name: str = "default", **more: str) -> str:
    facts = {"url": settings.base_url, "client_id": settings.client_id, "client_secret": settings.client_secret, **more}
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in facts.items())]) + "\n"


def test_a_profile_is_named(command: Command, write: Write, settings: ClientSettings) -> None:
    write(profile(settings, "mine", oauth_auth_method="client_secret_post", verify="false"))

    assert command("check", "--profile", "mine").code == 0


def test_the_default_profile_needs_no_option(command: Command, write: Write, settings: ClientSettings) -> None:
    write(profile(settings))

    assert command("jobs").code == 0


def test_the_environment_takes_precedence_over_it(
    command: Command, write: Write, settings: ClientSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(profile(settings))
    monkeypatch.setenv("TRAINING_URL", settings.base_url)

    done = command("jobs")

    assert done.code == 1
    assert "TRAINING_CLIENT_ID is missing; TRAINING_CLIENT_SECRET is missing" in done.err


def test_a_file_that_others_can_read_is_rejected(command: Command, write: Write, settings: ClientSettings) -> None:
    file = write(profile(settings), mode=0o640)

    done = command("jobs")

    assert done.code == 1
    assert f"chmod 600 {file}" in done.err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[other]\nurl = http://a\n", "There is no profile 'mine' in"),
        ("[mine]\nurl = http://a\nclient_id = me\n", "client_secret is missing"),
        ("[mine]\nurl = a.example\nclient_id = me\nclient_secret = s3cr3t\n", "url must be a URL such as"),
        (
            "[mine]\nurl = http://me:s3cr3t@a\nclient_id = me\nclient_secret = s3cr3t\n",
            "url must be a URL such as",
        ),
        ("[mine]\nurl = http://a\nclient_id = me\nclient_secret = s3cr3t\nsecret = s3cr3t\n", "secret is unknown"),
        ("[mine]\nurl = http://a\nclient_id = me\nclient_secret s3cr3t\n", "Line 4 of"),
        ("client_secret = s3cr3t\n", "Line 1 of"),
        ("[mine]\nurl = http://a:port\nclient_id = me\nclient_secret = s3cr3t\n", "url must be a URL such as"),
        ("[mine]\nurl = http://[::1\nclient_id = me\nclient_secret = s3cr3t\n", "url must be a URL such as"),
        ("[mine]\nurl=http://a\nclient_id=me\nclient_secret=s3cr3t\ntimeout=inf\n", "timeout must be a number of"),
        (
            "[mine]\nurl=http://a\nclient_id=me\nclient_secret=s3cr3t\noauth_http_method=GET\n"
            "oauth_auth_method=client_secret_post\n",
            "would put the client secret into a URL",
        ),
    ],
)
def test_an_invalid_profile_is_reported_in_a_sentence(
    command: Command, write: Write, content: str, message: str
) -> None:
    write(content)

    done = command("jobs", "--profile", "mine")

    assert done.code == 1
    assert message in done.err
    assert "s3cr3t" not in done.err


def test_a_missing_profile_file_is_reported(command: Command) -> None:
    done = command("jobs", "--profile", "mine")

    assert done.code == 1
    assert "There is no profile 'mine'" in done.err


def test_two_services_are_rejected(command: Command) -> None:
    done = command("jobs", "--profile", "mine", "--connection", "training_default")

    assert done.code == 1
    assert "not both" in done.err
