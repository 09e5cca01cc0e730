"""The signatures of the model of a job, read without its library: `python -m … <run folder>` writes `model.json`.

Sources: tensorflow/core/protobuf/saved_model.proto and meta_graph.proto, of which TensorBoard ships the second, and the
first has a number and a list of meta graphs; onnx/onnx.proto; MLflow's documentation, "MLflow Models: Model Signature".
Graphs and weights, most of a file, are not parsed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from airflow_training.api.description import read_document
from airflow_training.api.insights import Signature
from airflow_training.service.atomic_files import read_untrusted_json, write_json
from airflow_training.service.insights.job_model import Format, find_model
from airflow_training.service.insights.reader_limits import limit_program
from airflow_training.service.storage.job_files import JobFile, files_of

MAX_MODEL_BYTES = 256 * 1024 * 1024
"""Size limit of a file with signatures. Most have less than one megabyte: the weights are in other files."""

_MODEL_FILE = "model.json"
_TAG = "serve"
# Initializes a SavedModel; not for its users.
_INTERNAL = "__saved_model_init_op"
_MAX_SIGNATURES = 100
_MAX_TENSORS = 1000
_MAX_NAME_LENGTH = 300
_MAX_DIMENSIONS = 100
# In the order of their numbers in ONNX, from 1.
_ONNX_TYPES = (
    *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16", "float64"),
    *("uint32", "uint64", "complex64", "complex128", "bfloat16"),
)


class UnreadableModel(Exception):
    """The signatures cannot be read; the text has the reason."""


class SignatureRecord(BaseModel):
    """The result for one version of a file with signatures.

    Attributes:
        file: Its name, size and version.
        signatures: Its signatures; None if they cannot be read.
        reason: Why not.
    """

    file: tuple[str, int, str]
    signatures: list[Signature] | None
    reason: str


def cached_signatures(state: Path, model: JobFile) -> SignatureRecord | None:
    """The result for this version of a file; None if there is none yet."""
    with suppress(ValidationError):
        record = SignatureRecord.model_validate(read_untrusted_json(state / _MODEL_FILE))
        return record if record.file == model else None
    return None


def read_signatures(format_: Format, content: bytes) -> list[dict[str, Any]]:
    """Read the signatures of a `saved_model.pb`, an ONNX file or an `MLmodel`.

    Raises:
        UnreadableModel: It is damaged, or has no signatures or too many.
    """
    return {"SavedModel": _saved_model, "ONNX": _onnx, "MLflow": _mlflow}[format_](content)


def _saved_model(content: bytes) -> list[dict[str, Any]]:
    model = _parse("SavedModel", content, "saved_model.pb is damaged, or not a SavedModel.")
    graph = next((graph for graph in model.meta_graphs if _TAG in graph.meta_info_def.tags), None)
    if graph is None:
        raise UnreadableModel(f"saved_model.pb has no graph with the tag {_TAG}.")
    named = {entry.key: entry.value for entry in graph.signature_def if entry.key != _INTERNAL}
    _check_count(len(named), sum(len(signature.inputs) + len(signature.outputs) for signature in named.values()))
    return [
        {"name": _name(name), "inputs": _tensors(signature.inputs), "outputs": _tensors(signature.outputs)}
        for name, signature in sorted(named.items())
    ]


def _onnx(content: bytes) -> list[dict[str, Any]]:
    graph = _parse("Onnx", content, "The file is damaged, or not an ONNX model.").graph
    if not graph.output:
        raise UnreadableModel("The ONNX model has no outputs.")
    # Before version 4 of the format, each weight is an input as well.
    weights = {weight.name for weight in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    _check_count(1, len(inputs) + len(graph.output))
    return [{"name": _name(graph.name), "inputs": _onnx_values(inputs), "outputs": _onnx_values(graph.output)}]


def _onnx_values(values: Iterable[Any]) -> list[dict[str, Any]]:
    return [{"name": _name(value.name), **_onnx_type(value.type)} for value in values]


def _onnx_type(type_: Any) -> dict[str, Any]:
    if not type_.HasField("tensor_type"):
        return {"type": "not a tensor", "shape": None}
    tensor = type_.tensor_type
    _check_dimensions(len(tensor.shape.dim))
    known = 1 <= tensor.elem_type <= len(_ONNX_TYPES)
    return {
        "type": _ONNX_TYPES[tensor.elem_type - 1] if known else f"type {tensor.elem_type}",
        # A size that is not known has a name or nothing instead.
        "shape": [size.dim_value if size.dim_value > 0 else None for size in tensor.shape.dim]
        if tensor.HasField("shape")
        else None,
    }


def _mlflow(content: bytes) -> list[dict[str, Any]]:
    try:
        signature = read_document(content).get("signature") or {}
        inputs, outputs = (json.loads(signature.get(part) or "[]") for part in ("inputs", "outputs"))
        _check_count(1, len(inputs) + len(outputs))
        read = {"inputs": [_column(each) for each in inputs], "outputs": [_column(each) for each in outputs]}
    except (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError) as error:
        raise UnreadableModel("MLmodel is damaged, or has a signature of another version.") from error
    if not signature:
        raise UnreadableModel("MLmodel has no signature: log the model with one, or with an input_example.")
    return [{"name": "predict", **read}]


def _column(column: dict[str, Any]) -> dict[str, Any]:
    name = _name(str(column.get("name") or ""))
    tensor = column.get("tensor-spec")
    # A column of a table has one value in each row.
    if tensor is None:
        return {"name": name, "type": _name(str(column["type"])), "shape": [None]}
    _check_dimensions(len(tensor["shape"]))
    shape = [int(size) if int(size) >= 0 else None for size in tensor["shape"]]
    return {"name": name, "type": _name(str(tensor["dtype"])), "shape": shape}


def _parse(message: str, content: bytes, damaged: str) -> Any:
    model = _message_classes()[message]()
    try:
        model.ParseFromString(content)
    except Exception as error:
        raise UnreadableModel(damaged) from error
    return model


@cache
def _message_classes() -> dict[str, Any]:
    """The message classes without what is not shown; in the wire format, a map is a list of entries."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # noqa: PLC0415 - an extra
    from tensorboard.compat.proto import meta_graph_pb2  # noqa: PLC0415

    field = descriptor_pb2.FieldDescriptorProto
    scalars = {"string": field.TYPE_STRING, "int32": field.TYPE_INT32, "int64": field.TYPE_INT64}
    file = descriptor_pb2.FileDescriptorProto(
        name="airflow_training/models.proto",
        package="airflow_training",
        syntax="proto3",
        dependency=[meta_graph_pb2.DESCRIPTOR.name],
    )

    def message(name: str, *fields: str) -> None:
        """Add a message; fields are written as in a proto file."""
        added = file.message_type.add(name=name)
        for each in fields:
            *repeated, type_, called, number = each.split()
            added.field.add(
                name=called,
                number=int(number),
                label=field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL,
                type=scalars.get(type_, field.TYPE_MESSAGE),
                type_name=None if type_ in scalars else type_,
            )

    message("Entry", "string key 1", ".tensorboard.SignatureDef value 2")
    message("MetaGraph", ".tensorboard.MetaGraphDef.MetaInfoDef meta_info_def 1", "repeated Entry signature_def 5")
    message("SavedModel", "repeated MetaGraph meta_graphs 2")
    message("Dimension", "int64 dim_value 1")
    message("Shape", "repeated Dimension dim 1")
    message("Tensor", "int32 elem_type 1", "Shape shape 2")
    message("Type", "Tensor tensor_type 1")
    message("Value", "string name 1", "Type type 2")
    message("Weight", "string name 8")
    values = ("repeated Value input 11", "repeated Value output 12")
    message("Graph", "string name 2", "repeated Weight initializer 5", *values)
    message("Onnx", "Graph graph 7")
    pool = descriptor_pool.Default()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"airflow_training.{name}"))
        for name in ("SavedModel", "Onnx")
    }


def _tensors(named: Any) -> list[dict[str, Any]]:
    return [
        {"name": _name(name), "type": _type(tensor.dtype), "shape": _shape(tensor.tensor_shape)}
        for name, tensor in sorted(named.items())
    ]


def _name(text: str) -> str:
    # JSON may contain half a character.
    text = text.encode(errors="replace").decode()
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
    _check_dimensions(len(shape.dim))
    return [None if dimension.size < 0 else dimension.size for dimension in shape.dim]


def _check_count(signatures: int, tensors: int) -> None:
    if signatures > _MAX_SIGNATURES or tensors > _MAX_TENSORS:
        raise UnreadableModel(f"The model has more than {_MAX_SIGNATURES} signatures or {_MAX_TENSORS} tensors.")


def _check_dimensions(count: int) -> None:
    if count > _MAX_DIMENSIONS:
        raise UnreadableModel(f"A tensor of the model has more than {_MAX_DIMENSIONS} dimensions.")


def main() -> None:
    """Read the signatures of one job."""
    state = Path(sys.argv[1])
    limit_program()
    model, files = find_model(state), files_of(state)
    if isinstance(model, str) or files is None or model.described_by is None:
        return
    file = model.described_by
    too_much = f"{Path(file.name).name} could not be read: it takes too much time or memory."
    content = files.read(file.name, 0, MAX_MODEL_BYTES)
    result: dict[str, Any] = {"file": list(file), "signatures": None, "reason": too_much}
    # Remains if a limit ends the program, so that not every request tries again. Not shown while the program runs.
    write_json(state / _MODEL_FILE, result)
    try:
        result = {**result, "signatures": read_signatures(model.format, content), "reason": ""}
    except UnreadableModel as error:
        result["reason"] = str(error)
    write_json(state / _MODEL_FILE, result)


if __name__ == "__main__":
    main()
