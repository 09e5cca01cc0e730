"""Requirements, as pip reads them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_training.api.parameters import TrainingParameters
from airflow_training.api.requirements import is_name_of_a_file
from airflow_training.exceptions import InvalidParameters

HASH = "--hash=sha256:" + "a" * 64


def read(requirements: Any, data: dict[str, Any] | None = None, **more: Any) -> str:
    return TrainingParameters.read(
        {
            "job_name": "a",
            "image": "i",
            "completion_time": 1,
            "script": "train.py",
            "requirements": requirements,
            "data": data,
            **more,
        }
    ).requirements


def mistakes(requirements: Any, data: dict[str, Any] | None = None) -> tuple[str, ...]:
    with pytest.raises(InvalidParameters) as raised:
        read(requirements, data)
    return raised.value.errors


@pytest.mark.parametrize(
    "requirements",
    [
        f"six==1.17.0 \\\n    {HASH} \\\n    {HASH}\nnumpy==2.3.0 {HASH}",
        "six==1.17.0 \\",
        "# a comment that ends with a backslash \\\nsix",
        "git+https://example.com/six.git@main#egg=six",
        "git+ssh://git@example.com/six.git",
        "https://example.com/six-1.17.0-py3-none-any.whl ; python_version > '3'",
        "six @ git+https://example.com/six.git",
        "six[extra]@https://example.com/six.whl",
        "file:///opt/wheels/six.whl",
        "/opt/wheels/six.whl",
        "-r /opt/requirements.txt\n-c https://example.com/constraints.txt\n-e git+https://example.com/x#egg=x",
        "--find-links https://example.com/wheels\n-f /opt/wheels\n-i https://example.com\n--pre\n--no-binary :all:",
        "https://${USER}:${TOKEN}@example.com/six.whl\nsix==${SIX_VERSION}\n./wheels/${WHEEL}",
        'numpy>=1.26,<3; python_version >= "3.10" and sys_platform != "win32"  # fast',
        "discord.py\nzope.interface\nruamel.yaml",
    ],
)
def test_what_pip_takes_is_taken(requirements: str) -> None:
    assert read(requirements) == requirements


def test_a_byte_order_mark_is_no_part_of_a_name() -> None:
    assert read("\ufeffsix\nnumpy") == "six\nnumpy"
    assert read(["\ufeffsix", "numpy"]) == "six\nnumpy"


@pytest.mark.parametrize("file", ["requirements.txt", "./reqs/dev.txt", "/dags/requirements.in", "uv.lock"])
def test_a_file_among_other_requirements_is_refused(file: str) -> None:
    (mistake,) = mistakes(["six", file])

    assert mistake.startswith(f"requirements line 2, '{file}', is the name of a file: give the name alone, such as")


@pytest.mark.parametrize(
    ("requirements", "is_a_name"),
    [
        ("requirements.txt", True),
        ("/my dags/Requirements.TXT\n", True),
        ("s3://bucket/deps/pylock.gpu.toml", True),
        ("uv.lock", True),
        ("numpy", False),
        ("numpy\nrequirements.txt", False),
        ("-r requirements.txt", False),
        ("six  # as in requirements.txt", False),
        ("https://example.com/six-1.17.0.tar.gz", False),
        ("", False),
    ],
)
def test_one_line_that_ends_as_a_file_does_is_the_name_of_one(requirements: str, is_a_name: bool) -> None:
    assert is_name_of_a_file(requirements) is is_a_name


def test_requirements_that_name_their_own_file_are_refused() -> None:
    (mistake,) = mistakes("-r requirements.txt")

    assert mistake.startswith("requirements line 1, '-r requirements.txt', is the name of a file")


@pytest.mark.parametrize(
    ("requirements", "line", "reason"),
    [
        ("numpy=2", "line 1, 'numpy=2',", "Expected"),
        ("six\nnumpy, scipy", "line 2, 'numpy, scipy',", "Expected"),
        ("six \\\n ==1\n\npip install numpy", "line 4, 'pip install numpy',", "Expected"),
        ("numpy; python_version > 3", "line 1, 'numpy; python_version > 3',", "Expected"),
        ("x" * 100 + "!", f"line 1, '{'x' * 57}…',", "Expected"),
    ],
)
def test_what_is_none_is_told_with_its_line_and_the_reason(requirements: str, line: str, reason: str) -> None:
    (mistake,) = mistakes(requirements)

    wanted = f"requirements {line} is not a requirement such as 'numpy>=2', nor a URL, a path or an option of pip: "
    assert mistake.startswith(wanted + reason)
    assert "\n" not in mistake


@pytest.mark.parametrize(
    ("requirements", "place"),
    [
        ("./wheels/six-1.17.0-py3-none-any.whl", "wheels/six-1.17.0-py3-none-any.whl"),
        ("wheels/six.whl ; python_version > '3'", "wheels/six.whl"),
        (f"six.whl \\\n {HASH}", "six.whl"),
        ("./mine[extra]", "mine"),
        ("-r more.txt", "more.txt"),
        ("-rmore.txt", "more.txt"),
        ("--requirement=more.txt", "more.txt"),
        ("-c 'more.txt'", "more.txt"),
        ("-e ./mine", "mine"),
        ("--find-links ./wheels", "wheels"),
        ("-e .", "."),
    ],
)
def test_a_local_file_must_be_handed_over(requirements: str, place: str) -> None:
    (mistake,) = mistakes(f"six\n{requirements}")

    assert mistake.startswith(f"data must contain {place!r}, since line 2, ")
    if place != ".":
        assert read(requirements, {place: "s3://bucket/it"}) == requirements
    if "/" in place:
        assert read(requirements, {"wheels": "/the/folder"}) == requirements
    assert read(requirements, {f"{place}/setup.py": "s3://bucket/it"}) == requirements


def test_a_local_file_may_be_in_the_folder_of_code() -> None:
    assert read("./wheels/six.whl", source_dir="code") == "./wheels/six.whl"


@given(st.text(max_size=60) | st.from_regex(r"[-./\w=<>;\[\]@: #\\\n'\"]{0,40}"))
def test_any_text_is_taken_as_it_is_or_refused_in_words(text: str) -> None:
    with suppress(InvalidParameters):
        assert read(text) == text.removeprefix("\ufeff")
