"""What is known about a job besides its status and log: metrics, usage, installed packages and its model."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from airflow_training.api.resources import Resources

Unit = Literal["epoch", "step", "value"]

MAX_POINTS = 10_000
"""The most points of one curve in a reply."""


class Point(NamedTuple):
    """One value of a metric.

    Attributes:
        time: When it was logged, in seconds since 1970.
        step: Its epoch or step.
        value: The value, a finite number.
    """

    time: float
    step: float
    value: float


class Curve(BaseModel):
    """The values of one metric in the order of their steps.

    Attributes:
        name: The metric's name.
        unit: What the steps are: epochs, steps as the script counts them, or the index of the value if the script logs
            neither.
        points: The values, downsampled to the requested number so that the curve keeps its shape.
        total: The number of values that the job logged.
    """

    name: str
    unit: Unit
    points: list[Point]
    total: int = Field(ge=0)


class JobMetrics(BaseModel):
    """The curves of a job in the order of their names.

    A metric that is logged both by epoch and by step has one curve for each unit.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "curves": [
                        {
                            "name": "loss",
                            "unit": "epoch",
                            "points": [[1795594084.81, 1.0, 0.42], [1795594093.07, 2.0, 0.31]],
                            "total": 2,
                        }
                    ]
                }
            ]
        }
    )

    curves: list[Curve]


class UsageSample(BaseModel):
    """The usage of a job at a moment, or on average since the previous sample.

    Samples of a long job are merged, so that each covers a longer time.

    Attributes:
        time: Seconds since 1970.
        cpus: CPUs in use on average since the previous sample: 1.5 is one and a half.
        memory: MB in use at that moment, without page cache that the kernel can reclaim.
        gpus: GPUs in use on average; None if the job has none or they cannot be measured.
        gpu_memory: MB of GPU memory; None likewise.
    """

    time: float
    cpus: float = Field(ge=0)
    memory: float = Field(ge=0)
    gpus: float | None = None
    gpu_memory: float | None = None


class JobUsage(BaseModel):
    """The resources of a job and their use over time.

    Attributes:
        requested: The resources in the job's description.
        allocated: The resources the job got, which are its limit.
        samples: The samples in chronological order, downsampled to the requested number.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "requested": {"cpus": 2, "memory": 4096, "gpus": 1},
                    "allocated": {"cpus": 2, "memory": 4096, "gpus": 1},
                    "samples": [
                        {"time": 1795594084.81, "cpus": 1.07, "memory": 412.6, "gpus": 0.0, "gpu_memory": 310.0},
                        {"time": 1795594086.81, "cpus": 1.93, "memory": 1730.2, "gpus": 0.87, "gpu_memory": 6144.0},
                    ],
                }
            ]
        }
    )

    requested: Resources
    allocated: Resources
    samples: list[UsageSample]


class JobEnvironment(BaseModel):
    """The Python environment of a job, from the file with its installed packages.

    Attributes:
        python: The version of Python; empty if unknown.
        packages: The installed packages, each as a requirement.
    """

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"python": "3.12.1", "packages": ["numpy==2.3.0", "./wheels/mine-1.0.whl"]}]}
    )

    python: str
    packages: list[str]

    @classmethod
    def of(cls, text: str) -> JobEnvironment:
        """Read the file.

        >>> JobEnvironment.of("# Python 3.12.1\\nnumpy==2.3.0\\n")
        JobEnvironment(python='3.12.1', packages=['numpy==2.3.0'])
        """
        python = re.match(r"# Python (\S+)", text)
        packages = [line for line in text.splitlines() if line and not line.startswith("#")]
        return cls(python=python[1] if python else "", packages=packages)


class ModelFile(BaseModel):
    """A file of a model.

    Attributes:
        name: Its path below the model's folder; its name if it is the model.
        size: Bytes.
    """

    name: str
    size: int


class Tensor(BaseModel):
    """An input or output of a signature.

    Attributes:
        name: Its name.
        type: The type of its elements, such as `float32`.
        shape: Its dimensions, None for one of any size; None if even their number is unknown.
    """

    name: str
    type: str
    shape: list[int | None] | None


class Signature(BaseModel):
    """A function of a model that a model server can call."""

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ModelSummary(BaseModel):
    """What a job hands on: its model, or its folder.

    Attributes:
        path: Its path in the job folder; "." for the job folder itself.
        format: What it is, if it is known: "SavedModel", "ONNX" or "MLflow".
        files: Its files.
        signatures: Its signatures; None if the format has none or they cannot be read.
        reason: Why they cannot be read.
        choice: Which of several models it is, in a sentence; empty if there is only one.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "path": "model/1",
                    "format": "SavedModel",
                    "files": [
                        {"name": "saved_model.pb", "size": 84123},
                        {"name": "variables/variables.data-00000-of-00001", "size": 10240},
                        {"name": "variables/variables.index", "size": 512},
                    ],
                    "signatures": [
                        {
                            "name": "serving_default",
                            "inputs": [{"name": "age", "type": "float32", "shape": [None]}],
                            "outputs": [{"name": "probability", "type": "float32", "shape": [None, 1]}],
                        }
                    ],
                    "reason": "",
                    "choice": "",
                }
            ]
        }
    )

    path: str
    format: Literal["SavedModel", "ONNX", "MLflow", ""] = ""
    files: list[ModelFile]
    signatures: list[Signature] | None = None
    reason: str = ""
    choice: str = ""
