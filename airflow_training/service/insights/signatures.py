"""The signatures of the SavedModel of a job, read without TensorFlow: `python -m … <state folder>` writes `model.json`.

Source: tensorflow/core/protobuf/saved_model.proto and meta_graph.proto; TensorBoard brings the second, and the first is
a number and a list of meta graphs. The graphs themselves, which are most of it, are not read.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_training.api.model_summary import Signature
from airflow_training.api.saved_model import MARKER, find_saved_model
from airflow_training.service.durable_files import read_damaged_json, write_json
from airflow_training.service.insights.reader_limits import limit_this_program
from airflow_training.service.storage.job_files import JobFile, files_of

LARGEST = 256 * 1024 * 1024
"""Bytes of a `saved_model.pb` that is read; the weights are beside it, so that most have less than one megabyte."""

_MODEL_FILE = "model.json"
_TOO_MUCH = f"{MARKER} could not be read: it takes too much time or memory."
_TAG = "serve"
# What a SavedModel is initialized with: not for those who use it.
_INTERNAL = "__saved_model_init_op"
_MOST_SIGNATURES = 100
_MOST_TENSORS = 1000
_LONGEST_NAME = 300
_MOST_DIMENSIONS = 100


class NotReadable(Exception):
    """The signatures cannot be told; the text says why."""


class Known(BaseModel):
    """What the program has found out about a `saved_model.pb`.

    Attributes:
        of: Its name, size and version.
        signatures: Its signatures; None where they cannot be read.
        reason: Why not.
    """

    of: tuple[str, int, str]
    signatures: list[Signature] | None
    reason: str


def known_signatures(state: Path, model: JobFile) -> Known | None:
    """What is known of a `saved_model.pb`; None where nothing is yet."""
    with suppress(ValidationError):
        known = Known.model_validate(read_damaged_json(state / _MODEL_FILE))
        return known if known.of == model else None
    return None


def read_signatures(content: bytes) -> list[dict[str, Any]]:
    """Read the signatures of a `saved_model.pb` that are for serving.

    Raises:
        NotReadable: It is none, or has none or too many.
    """
    model = _message()()
    try:
        model.ParseFromString(content)
    except Exception as error:
        raise NotReadable("saved_model.pb is damaged, or no SavedModel.") from error
    graph = next((graph for graph in model.meta_graphs if _TAG in graph.meta_info_def.tags), None)
    if graph is None:
        raise NotReadable(f"saved_model.pb has no graph with the tag {_TAG}.")
    named = {entry.key: entry.value for entry in graph.signature_def if entry.key != _INTERNAL}
    tensors = sum(len(signature.inputs) + len(signature.outputs) for signature in named.values())
    if len(named) > _MOST_SIGNATURES or tensors > _MOST_TENSORS:
        raise NotReadable(f"The model has more than {_MOST_SIGNATURES} signatures or {_MOST_TENSORS} tensors.")
    return [
        {"name": _name(name), "inputs": _tensors(signature.inputs), "outputs": _tensors(signature.outputs)}
        for name, signature in sorted(named.items())
    ]


def _message() -> Any:
    """The class of a SavedModel without its graphs; on the wire a map is a list of keys and values."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415 - an extra
    from tensorboard.compat.proto import meta_graph_pb2  # noqa: PLC0415

    file = descriptor_pb2.FileDescriptorProto(
        name="airflow_training/saved_model.proto",
        package="airflow_training",
        syntax="proto3",
        dependency=[meta_graph_pb2.DESCRIPTOR.name],
    )
    many, one = descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED, descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL
    message, text = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, descriptor_pb2.FieldDescriptorProto.TYPE_STRING
    entry = file.message_type.add(name="Entry")
    entry.field.add(name="key", number=1, type=text, label=one)
    entry.field.add(name="value", number=2, type=message, label=one, type_name=".tensorboard.SignatureDef")
    graph = file.message_type.add(name="MetaGraph")
    info = ".tensorboard.MetaGraphDef.MetaInfoDef"
    graph.field.add(name="meta_info_def", number=1, type=message, label=one, type_name=info)
    graph.field.add(name="signature_def", number=5, type=message, label=many, type_name=".airflow_training.Entry")
    model = file.message_type.add(name="SavedModel")
    model.field.add(name="meta_graphs", number=2, type=message, label=many, type_name=".airflow_training.MetaGraph")
    pool = descriptor_pool.Default()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("airflow_training.SavedModel"))


def _tensors(named: Any) -> list[dict[str, Any]]:
    return [
        {"name": _name(name), "type": _type(tensor.dtype), "shape": _shape(tensor.tensor_shape)}
        for name, tensor in sorted(named.items())
    ]


def _name(text: str) -> str:
    return text if len(text) <= _LONGEST_NAME else f"{text[: _LONGEST_NAME - 1]}…"


def _type(number: int) -> str:
    """The name that TensorFlow and numpy have for a type, such as `float32`."""
    from tensorboard.compat.proto.types_pb2 import DataType  # noqa: PLC0415 - an extra
    from tensorboard.compat.tensorflow_stub.dtypes import as_dtype  # noqa: PLC0415

    try:
        return str(as_dtype(number).name)
    except (TypeError, ValueError, KeyError):
        pass
    try:
        return DataType.Name(number).removeprefix("DT_").lower()  # type: ignore[no-any-return]
    except ValueError:
        return f"type {number}"


def _shape(shape: Any) -> list[int | None] | None:
    if shape.unknown_rank:
        return None
    if len(shape.dim) > _MOST_DIMENSIONS:
        raise NotReadable(f"A tensor of the model has more than {_MOST_DIMENSIONS} dimensions.")
    return [None if dimension.size < 0 else dimension.size for dimension in shape.dim]


def main() -> None:
    """Read those of one job."""
    state = Path(sys.argv[1])
    limit_this_program()
    files = files_of(state)
    found = {file.name: file for file in files.all()} if files else {}
    folder = find_saved_model(found)
    if files is None or folder is None:
        return
    model = found[MARKER if folder == "." else f"{folder}/{MARKER}"]
    content = files.read(model.name, 0, LARGEST)
    told: dict[str, Any] = {"of": list(model), "signatures": None, "reason": _TOO_MUCH}
    # This stays if a limit ends the program, so that it is not tried with each request; until then, nobody is shown it.
    write_json(state / _MODEL_FILE, told)
    try:
        told = {**told, "signatures": read_signatures(content), "reason": ""}
    except NotReadable as error:
        told["reason"] = str(error)
    write_json(state / _MODEL_FILE, told)


if __name__ == "__main__":
    main()
