"""What a SavedModel consists of: its files and its signatures, as they travel."""

from __future__ import annotations

from pydantic import BaseModel


class ModelFile(BaseModel):
    """A file of a SavedModel.

    Attributes:
        name: Its path below the model's folder.
        size: Bytes.
    """

    name: str
    size: int


class Tensor(BaseModel):
    """What goes into a signature of a model, or comes out of it.

    Attributes:
        name: Its name.
        type: The type of its numbers, such as `float32`.
        shape: Its dimensions, None for one of any size; None where even their number is unknown.
    """

    name: str
    type: str
    shape: list[int | None] | None


class Signature(BaseModel):
    """A function of a model that serving can call."""

    name: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ModelSummary(BaseModel):
    """A SavedModel.

    Attributes:
        folder: Where it lies in the job's folder; "." where that is the model.
        files: Its files.
        signatures: Its signatures; None where they cannot be read.
        reason: Why not.
    """

    folder: str
    files: list[ModelFile]
    signatures: list[Signature] | None = None
    reason: str = ""
