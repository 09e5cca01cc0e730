"""Which of the files of a job is its model."""

from __future__ import annotations

import tracemalloc
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_training.api.model import describe_choice, describe_missing, find_models


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        ([], None),
        (["model.h5", "saved_model.pb.txt"], None),
        (["saved_model.pb"], "."),
        (["model/saved_model.pb", "model/variables/variables.index"], "model"),
        (["model/9/saved_model.pb", "model/10/saved_model.pb"], "model/10"),
        (["out/deep/er/3/saved_model.pb"], "out/deep/er/3"),
        (["saved_model.pb", "checkpoints/best/saved_model.pb"], "."),
        (["saved_model.pb", "export/1/saved_model.pb"], "export/1"),
        (["checkpoints/100/saved_model.pb", "model/1/saved_model.pb"], "model/1"),
        (["ckpt/100/saved_model.pb", "out/model/1/saved_model.pb"], "out/model/1"),
        (["Checkpoints/100/saved_model.pb", "saved_model.pb"], "."),
        (["teacher/7/saved_model.pb", "model/1/saved_model.pb"], "model/1"),
        (["model/1/saved_model.pb", "a/b/9/saved_model.pb"], "model/1"),
        (["model/saved_model.pb", "model/0/saved_model.pb"], "model/0"),
        (["checkpoints/9/saved_model.pb"], "checkpoints/9"),
    ],
)
def test_the_newest_version_of_a_savedmodel_is_taken(files: list[str], folder: str | None) -> None:
    assert next(iter(find_models(files)), None) == folder


ONNX = ["out/a.onnx", "out/b.onnx", "out/deep/c.onnx", "out/.d.onnx", "out/A.ONNX"]


@pytest.mark.parametrize(
    ("model", "files", "found"),
    [
        ("model.joblib", ["model.joblib", "out/model.joblib"], ["model.joblib"]),
        ("./model.joblib", ["model.joblib"], ["model.joblib"]),
        ("model.joblib", ["Model.joblib"], []),
        ("out/*.onnx", ONNX, ["out/a.onnx", "out/b.onnx"]),
        ("**/*.onnx", ONNX, ["out/a.onnx", "out/b.onnx", "out/deep/c.onnx"]),
        ("out/.*", ONNX, ["out/.d.onnx"]),
        ("*.onnx", ONNX, []),
        ("out", ONNX, ["out"]),
        ("out/", ONNX, ["out"]),
        ("**", ["a/b", "c", ".d/e"], ["a", "c"]),
        ("**/b", ["a/b/b", "b", "a/c/b"], ["b", "a/b", "a/c/b"]),
        ("a/**/b", ["a/b", "a/c/b", "b", "c/b"], ["a/b", "a/c/b"]),
        ("runs/*", ["runs/9/a", "runs/10/a", "runs/best/a"], ["runs/10", "runs/best"]),
        ("model", ["model/9/a", "model/10/a"], ["model/10"]),
        ("model", ["model/9/a", "model/10/a", "model/log.txt"], ["model"]),
        ("model", ["model/9", "model/10/a"], ["model"]),
        ("*/model.pt", ["ckpt-9/model.pt", "out/model.pt"], ["out/model.pt", "ckpt-9/model.pt"]),
        ("*.json", ["a.json", "metrics.json", "model.json"], ["model.json", "a.json"]),
        ("metrics.json", ["metrics.json"], ["metrics.json"]),
        ("a[1]/*.pt", ["a[1]/b.pt"], ["a[1]/b.pt"]),
        ("model", ["mlflow/model", "modelling/model"], []),
        ("SavedModel", ["SavedModel/a"], []),
        ("./SavedModel", ["SavedModel/a"], ["SavedModel"]),
        (None, ["a"], ["."]),
    ],
)
def test_a_path_or_glob_names_files_and_folders(model: str | None, files: list[str], found: list[str]) -> None:
    assert find_models(files, model) == found
    assert find_models(reversed(files), model) == found


@pytest.mark.parametrize("model", ["SavedModel", "model", "model/*", "**/saved_model.pb"])
def test_what_was_there_before_is_not_the_model(model: str) -> None:
    files = ["data/model/saved_model.pb", "model/saved_model.pb"]

    assert find_models(files, model, ["data", "model/saved_model.pb"]) == []


def test_each_of_several_models_is_named_in_its_newest_version() -> None:
    files = [
        "a/1/saved_model.pb",
        "model/9/saved_model.pb",
        "model/10/saved_model.pb",
        "checkpoints/300/saved_model.pb",
    ]

    assert find_models(files) == ["model/10", "a/1", "checkpoints/300"]


def test_of_many_that_are_passed_over_the_first_are_named() -> None:
    said = describe_choice(
        find_models(f"{name}/saved_model.pb" for name in ["model", *(f"ckpt-{n}" for n in range(9))])
    )

    assert said.startswith("Found several SavedModels, using model; ignored: ckpt-0, ")
    assert said.endswith("ckpt-4 and 4 more")
    assert describe_choice(["model"]) == ""


def test_what_is_missing_is_described_by_what_is_there() -> None:
    files = ["train.py", "deep/model.pt", *(f"{letter}.txt" for letter in "fedcba"), "\n"]

    missing = describe_missing(files, "model.joblib", ["train.py"])

    assert missing == r"no model.joblib, only '\n', a.txt, b.txt, c.txt, d.txt and 3 more"


def test_a_glob_of_many_folders_takes_little_memory() -> None:
    glob = f"{'**/' * 160}none"
    files = [f"{number}/{number}" for number in range(2_500)]
    tracemalloc.start()

    assert find_models(files, glob) == []

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 24 * 1024**2


names = st.text("ab1.*[", min_size=1, max_size=3).filter(lambda name: name.strip("."))
paths = st.lists(names, min_size=1, max_size=4).map("/".join)


@given(st.lists(paths, max_size=8), paths)
def test_a_path_that_exists_is_found_whatever_it_contains(others: list[str], path: str) -> None:
    found = [PurePosixPath(each) for each in find_models([*others, path], path)]

    assert any(each.is_relative_to(path) or PurePosixPath(path).is_relative_to(each) for each in found)


@given(st.lists(paths, max_size=8), st.lists(st.sampled_from(["*", "**", "a", "*b", "1"]), min_size=1, max_size=4))
def test_no_match_is_within_another_and_each_is_there(files: list[str], parts: list[str]) -> None:
    found = [PurePosixPath(path) for path in find_models(files, "/".join(parts))]

    assert all(any(PurePosixPath(file).is_relative_to(path) for file in files) for path in found)
    assert not any(one != other and one.is_relative_to(other) for one in found for other in found)
