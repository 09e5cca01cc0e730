"""The parameters of a training and their validation errors."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic.alias_generators import to_camel

from airflow_training.api.parameters import TrainingParameters, overridden
from airflow_training.exceptions import InvalidParameters

MINIMAL: dict[str, Any] = {
    "job_name": "census",
    "image": "tensorflow/tensorflow:2.21.0",
    "completion_time": "1h",
    "script": "train.py",
}


def mistakes(**values: Any) -> tuple[str, ...]:
    with pytest.raises(InvalidParameters) as raised:
        TrainingParameters.read({**MINIMAL, **values})
    return raised.value.errors


def test_the_least_that_can_be_asked_for_is_a_name_an_image_a_time_and_a_script() -> None:
    parameters = TrainingParameters.read(MINIMAL)

    assert parameters.python_major_version == 3
    assert parameters.resources.model_dump() == {"cpus": 1, "gpus": 0, "memory": None}
    assert parameters.script_file == "train.py"


def test_all_mistakes_are_listed_at_once() -> None:
    found = mistakes(resources={"cpus": "many"}, python_major_version=4, job_name="../x", image="", env=[{"name": "A"}])

    assert found == (
        "job_name must be 1 to 63 letters, digits, '.', '_' or '-', a letter or digit first, not '../x'",
        "env[0].value is missing",
        "image must be the name of a container image, not ''",
        "resources.cpus must be a whole number, 1 or more, not 'many'",
        "python_major_version must be 2 or 3, not 4",
    )


@pytest.mark.parametrize("name", sorted(MINIMAL))
def test_what_is_missing_is_named_in_pythons_spelling(name: str) -> None:
    assert mistakes(**{name: None}) == (f"{name} is missing",)


@pytest.mark.parametrize(
    ("values", "mistake"),
    [
        ({"jobname": "x"}, "jobname is unknown"),
        ({"resources": {"cpu": 1}}, "resources.cpu is unknown"),
        ({"resources": {"memory": True}}, "resources.memory must be a whole number, not True"),
        ({"resources": {"cpus": 0}}, "resources.cpus must be a whole number, 1 or more, not 0"),
        ({"resources": {"cpus": 10**6}}, "resources.cpus must be 100,000 or less, not 1000000"),
        ({"resources": "{"}, "resources is neither JSON (Expecting property name"),
        ({"env": "A=1"}, "env is neither JSON (Expecting value at character 0) nor a Python value"),
        ({"env": {"A B": 1}}, "env[0].name must be letters, digits and '_', 256 at most, not 'A B'"),
        ({"env": {"A": "x" * 32_769}}, "env[0].value has 32769 bytes; the limit is 32768: put it into a file"),
        ({"env": {"A": None}}, "env[0].value must be a string, a number or a boolean, not None"),
        ({"env": {"A": "\0"}}, "env[0].value contains a NUL character"),
        ({"env": {"A": 1, "a": 2}}, "env gives --a more than once"),
        ({"completion_time": ""}, "completion_time must be a time such as '20h', or a number of seconds, not ''"),
        ({"completion_time": -1}, "completion_time must be a time such as '20h', or a number of seconds, not -1"),
        (
            {"completion_time": "10 parsecs"},
            "completion_time is not a time such as '20h', '1h30m', 'PT1H30M' or a number",
        ),
        ({"completion_time": "1:30:00"}, "completion_time is not a time such as"),
        ({"completion_time": "0h"}, "completion_time is not a time such as"),
        ({"requirements": "numpy, scipy"}, "requirements line 1, 'numpy, scipy', is not a requirement"),
        ({"requirements": ["numpy", "=="]}, "requirements line 2, '==', is not a requirement"),
        ({"python_version": "3.12.1"}, "python_version must be a version such as '3.12', not '3.12.1'"),
        (
            {"python_version": "3.12", "python_major_version": 2},
            "python_version must not be '3.12' if python_major_version is 2",
        ),
        ({"version": "2"}, "version must be a version of the job API such as 'v2', not '2'"),
        ({"script": "/"}, "script must be a path, a URI, the text of a program or '-m package.module'"),
        ({"script": "-m a b"}, "script must be a path, a URI, the text of a program or '-m package.module'"),
        ({"source_dir": "code", "script": "../train.py"}, "source_dir requires a script in it"),
        ({"source_dir": 5}, "source_dir must be the path or URI of a folder, not 5"),
        ({"launcher": "torchrun 'x"}, "launcher cannot be split into words: No closing quotation"),
        ({"launcher": 5}, "launcher must be a command such as"),
        ({"args": {"two words": 1}}, "args has 'two words', which is not the name of an option"),
        ({"args": [["nested"]]}, "args has ['nested']: each argument must be"),
        ({"args": ["a\0"]}, "args contains a NUL character"),
        ({"environment": {"A": 1}, "env": {"A": 2}}, "environment gives A more than once, or env does"),
        ({"python_version": 3.1}, "python_version must be a version such as '3.12', not 3.1"),
        ({"model": ""}, "model must be a path or glob"),
        ({"model": "**/a/" * 11 + "b"}, "model must have '**' at most 10 times"),
        ({"script": "-c.py"}, "script must be a path, a URI, the text of a program or '-m package.module'"),
        ({"data": {"../a": "x"}}, "data '../a' is not a file name"),
        ({"data": {"/a": "x"}}, "data '/a' is not a file name"),
        ({"data": {"a": 3}}, "data 'a' must be a path, a URI, a directory or bytes, not 3"),
        ({"data": {"train.py": "x"}}, "data must not contain train.py: that is the name of the job's own file"),
        ({"data": {"requirements.txt": "x"}}, "data must not contain requirements.txt"),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_must_be_there(values: dict[str, Any], mistake: str) -> None:
    (found,) = mistakes(**values)

    assert found.startswith(mistake)


@pytest.mark.parametrize("model", ["/model.pt", "../model.pt", "a/../../b", "", ".", "./", "a\n", 5, "a" * 600])
def test_a_model_outside_of_the_job_folder_is_a_mistake(model: Any) -> None:
    (mistake,) = mistakes(model=model)

    assert mistake.startswith("model must be a path or glob in the job folder, 'SavedModel'")


@pytest.mark.parametrize("model", ["SavedModel", "./SavedModel", "out/**/*.pt", "[best]", "ä b", None])
def test_a_model_is_a_path_or_glob(model: str | None) -> None:
    assert TrainingParameters.read({**MINIMAL, "model": model}).model == model


def test_templates_may_deliver_everything_as_text() -> None:
    parameters = TrainingParameters.read(
        {
            **MINIMAL,
            "python_major_version": "2",
            "resources": '{"cpus": 2, "gpus": 1, "memory": 2048}',
            "env": '[{"name": "TEST_DATA", "value": "a.csv"}]',
            "data": '{"a.csv": "s3://bucket/a.csv"}',
        }
    )

    assert parameters.python_major_version == 2
    assert parameters.resources.gpus == 1
    assert parameters.env[0].name == "TEST_DATA"
    assert parameters.data == {"a.csv": "s3://bucket/a.csv"}


def test_a_mapping_of_variables_is_a_list_of_them() -> None:
    parameters = TrainingParameters.read({**MINIMAL, "env": {"EPOCHS": 5, "SHUFFLE": True, "RATE": 0.1}})

    assert [(v.name, v.text) for v in parameters.env] == [("EPOCHS", "5"), ("SHUFFLE", "true"), ("RATE", "0.1")]


def test_a_time_in_the_words_of_another_service_is_taken_if_something_else_ends_the_job() -> None:
    values = {**MINIMAL, "completion_time": "10 parsecs"}

    assert TrainingParameters.read(values, limited=True).completion_time == "10 parsecs"


def test_a_number_in_a_text_stays_as_it_was_written() -> None:
    parameters = TrainingParameters.read(overridden(MINIMAL, '{"env": {"PYTHON": 3.10, "RATE": 1e-3}}'))

    assert [variable.text for variable in parameters.env] == ["3.10", "1e-3"]


def test_options_and_comments_of_pip_are_left_to_pip() -> None:
    requirements = (
        "--index-url https://example.com/simple\n# numbers\nnumpy>=1.26  # fast\n\nx @ https://example.com/x.whl"
    )

    assert TrainingParameters.read({**MINIMAL, "requirements": requirements}).requirements == requirements


def test_a_program_text_is_a_script_too() -> None:
    assert TrainingParameters.read({**MINIMAL, "script": "print(1)\n"}).script_file == "train.py"


class TestConfig:
    """The configuration that trainingClient received at run time."""

    def test_it_overrides_in_both_spellings(self) -> None:
        values = overridden(MINIMAL, {"jobName": "nightly", "completion_time": 60, "pythonMajorVersion": 2})

        assert values == {**MINIMAL, "job_name": "nightly", "completion_time": 60, "python_major_version": 2}

    def test_it_may_be_json(self) -> None:
        assert overridden(MINIMAL, '{"jobName": "nightly"}')["job_name"] == "nightly"

    def test_it_may_be_text_as_a_template_renders_it(self) -> None:
        assert overridden(MINIMAL, "{'jobName': 'nightly'}")["job_name"] == "nightly"

    def test_an_unknown_name_is_reported(self) -> None:
        with pytest.raises(InvalidParameters, match=r"epochs is unknown"):
            TrainingParameters.read(overridden(MINIMAL, {"epochs": 3}))

    @pytest.mark.parametrize("name", ["oauthClientId", "oauthClientSecret", "oauthTokenUrl", "jobAPI"])
    def test_secrets_are_refused_and_not_repeated(self, name: str) -> None:
        with pytest.raises(InvalidParameters, match=rf"config must not contain {name}") as raised:
            overridden(MINIMAL, {name: "s3cr3t"})
        assert "s3cr3t" not in str(raised.value)

    @pytest.mark.parametrize("config", ["nonsense", [1], "[1]"])
    def test_what_is_no_mapping_is_refused(self, config: Any) -> None:
        with pytest.raises(InvalidParameters, match="config"):
            overridden(MINIMAL, config)


values = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), st.booleans(), st.integers()
)
names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]{0,20}\Z")


@given(st.lists(st.tuples(names, values), unique_by=lambda variable: variable[0].lower(), max_size=5))
def test_python_spelling_and_wire_spelling_mean_the_same(variables: list[tuple[str, Any]]) -> None:
    given_values = {**MINIMAL, "env": [{"name": name, "value": value} for name, value in variables]}
    wire = json.dumps({to_camel(name): value for name, value in given_values.items()})

    assert TrainingParameters.read(overridden({}, wire)) == TrainingParameters.read(given_values)


@given(st.dictionaries(st.sampled_from(sorted(TrainingParameters.model_fields)), st.integers() | st.text(), min_size=1))
def test_nonsense_is_refused_in_words_and_never_crashes(nonsense: dict[str, Any]) -> None:
    with pytest.raises(InvalidParameters) as raised:
        TrainingParameters.read({**nonsense, "resources": 3})

    assert any(mistake.startswith("resources must be a mapping") for mistake in raised.value.errors)
