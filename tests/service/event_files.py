"""Event files and SavedModels for tests, written without TensorFlow."""

from __future__ import annotations

import struct
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from google.protobuf.internal.encoder import _VarintBytes
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.meta_graph_pb2 import MetaGraphDef
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tensorboard.util.tensor_util import make_tensor_proto

from airflow_training.service.runners.run_folder import Exit, JobLimits, Spec

NAME = "events.out.tfevents.1795594084.host"


def record(content: bytes, claimed: int | None = None) -> bytes:
    head = struct.pack("<Q", len(content) if claimed is None else claimed)
    return head + struct.pack("<I", masked_crc32c(head)) + content + struct.pack("<I", masked_crc32c(content))


def old_scalar(tag: str, step: int, value: float, at: float = 1795594084.0) -> bytes:
    summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
    return record(Event(wall_time=at, step=step, summary=summary).SerializeToString())


def new_scalar(tag: str, step: int, value: Any, plugin: str = "scalars") -> bytes:
    scalar = Summary.Value(tag=tag, tensor=make_tensor_proto(value))
    scalar.metadata.plugin_data.plugin_name = plugin
    return record(Event(wall_time=1795594084.0, step=step, summary=Summary(value=[scalar])).SerializeToString())


def write_by_tensorboard(folder: Path, values: list[float]) -> None:
    """Write with TensorBoard's own writer."""
    writer = EventFileWriter(str(folder))
    for step, value in enumerate(values):
        summary = Summary(value=[Summary.Value(tag="loss", simple_value=value)])
        writer.add_event(Event(wall_time=1795594084.0 + step, step=step, summary=summary))
    writer.close()


def graph(tags: tuple[str, ...] = ("serve",), signatures: tuple[str, ...] = ("serving_default",)) -> MetaGraphDef:
    made = MetaGraphDef()
    made.meta_info_def.tags.extend(tags)
    for name in (*signatures, "__saved_model_init_op"):
        signature = made.signature_def[name]
        city, age = signature.inputs["city"], signature.inputs["age"]
        city.name, city.dtype = "serving_default_city:0", 7
        city.tensor_shape.unknown_rank = True
        age.name, age.dtype = "serving_default_age:0", 1
        for size in (-1, 3):
            age.tensor_shape.dim.add(size=size)
        signature.outputs["label"].dtype = 9
    return made


def saved_model(*graphs: MetaGraphDef) -> bytes:
    contents = [made.SerializeToString() for made in graphs]
    return b"\x08\x01" + b"".join(b"\x12" + _VarintBytes(len(content)) + content for content in contents)


def state_of(folder: Path, files: Path, *, ended: bool = True) -> Path:
    """The run folder of a job with these files."""
    folder.mkdir(exist_ok=True)
    Spec(
        command="true",
        env={},
        masks=[],
        files={"folder": str(files)},
        limits=JobLimits(cpus=1, memory=1, disk=1, log=1, seconds=None),
        gpus=[],
        retries=0,
        runner="process",
    ).write(folder)
    if ended:
        now = datetime.now(timezone.utc)
        Exit(state="SUCCEEDED", started=now, finished=now, log_bytes=0).write(folder)
    return folder
