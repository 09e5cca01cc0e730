"""The signatures of the SavedModel of a job, read without TensorFlow: `python -m … <run folder>` writes `model.json`.

Source: tensorflow/core/protobuf/saved_model.proto and meta_graph.proto. TensorBoard ships the second; the first has a
number and a list of meta graphs. The graphs themselves, most of the file, are not parsed.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_training.api.insights import Signature
from airflow_training.api.saved_model import MARKER, find_saved_model
from airflow_training.service.atomic_files import read_untrusted_json, write_json
from airflow_training.service.insights.reader_limits import limit_program
from airflow_training.service.storage.job_files import JobFile, files_of

MAX_MODEL_BYTES = 256 * 1024 * 1024
"""Size limit of `saved_model.pb`. Most have less than one megabyte: the weights are in other files."""

_MODEL_FILE = "model.json"
_TOO_MUCH = f"{MARKER} could not be read: it takes too much time or memory."
_TAG = "serve"
# Initializes a SavedModel; not for its users.
_INTERNAL = "__saved_model_init_op"
_MAX_SIGNATURES = 100
_MAX_TENSORS = 1000
_MAX_NAME_LENGTH = 300
_MAX_DIMENSIONS = 100


class UnreadableModel(Exception):
    """The signatures cannot be read; the text has the reason."""


class SignatureRecord(BaseModel):
    """The result for one version of a `saved_model.pb`.

    Attributes:
        file: Its name, size and version.
        signatures: Its signatures; None if they cannot be read.
        reason: Why not.
    """

    file: tuple[str, int, str]
    signatures: list[Signature] | None
    reason: str


def cached_signatures(state: Path, model: JobFile) -> SignatureRecord | None:
    """The result for this version of a `saved_model.pb`; None if there is none yet."""
    with suppress(ValidationError):
        record = SignatureRecord.model_validate(read_untrusted_json(state / _MODEL_FILE))
        return record if record.file == model else None
    return None


def read_signatures(content: bytes) -> list[dict[str, Any]]:
    """Read the serving signatures of a `saved_model.pb`.

    Raises:
        UnreadableModel: It is damaged, or has no signatures or too many.
    """
    model = _message_class()()
    try:
        model.ParseFromString(content)
    except Exception as error:
        raise UnreadableModel("saved_model.pb is damaged, or not a SavedModel.") from error
    graph = next((graph for graph in model.meta_graphs if _TAG in graph.meta_info_def.tags), None)
    if graph is None:
        raise UnreadableModel(f"saved_model.pb has no graph with the tag {_TAG}.")
    named = {entry.key: entry.value for entry in graph.signature_def if entry.key != _INTERNAL}
    tensors = sum(len(signature.inputs) + len(signature.outputs) for signature in named.values())
    if len(named) > _MAX_SIGNATURES or tensors > _MAX_TENSORS:
        raise UnreadableModel(f"The model has more than {_MAX_SIGNATURES} signatures or {_MAX_TENSORS} tensors.")
    return [
        {"name": _name(name), "inputs": _tensors(signature.inputs), "outputs": _tensors(signature.outputs)}
        for name, signature in sorted(named.items())
    ]


def _message_class() -> Any:
    """The message class of a SavedModel without its graphs; in the wire format, a map is a list of entries."""
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
    return text if len(text) <= _MAX_NAME_LENGTH else f"{text[: _MAX_NAME_LENGTH - 1]}…"


def _type(number: int) -> str:
    """The name of a type in TensorFlow and numpy, such as `float32`."""
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
    if len(shape.dim) > _MAX_DIMENSIONS:
        raise UnreadableModel(f"A tensor of the model has more than {_MAX_DIMENSIONS} dimensions.")
    return [None if dimension.size < 0 else dimension.size for dimension in shape.dim]


def main() -> None:
    """Read the signatures of one job."""
    state = Path(sys.argv[1])
    limit_program()
    files = files_of(state)
    found = {file.name: file for file in files.all()} if files else {}
    folder = find_saved_model(found)
    if files is None or folder is None:
        return
    model = found[MARKER if folder == "." else f"{folder}/{MARKER}"]
    content = files.read(model.name, 0, MAX_MODEL_BYTES)
    result: dict[str, Any] = {"file": list(model), "signatures": None, "reason": _TOO_MUCH}
    # Remains if a limit ends the program, so that not every request tries again. Not shown while the program runs.
    write_json(state / _MODEL_FILE, result)
    try:
        result = {**result, "signatures": read_signatures(content), "reason": ""}
    except UnreadableModel as error:
        result["reason"] = str(error)
    write_json(state / _MODEL_FILE, result)


if __name__ == "__main__":
    main()
