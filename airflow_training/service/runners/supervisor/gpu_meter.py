"""What the graphics processors of a job are doing, as NVIDIA's driver tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_MEGABYTE = 1024 * 1024


class GpuMeter:
    """Asks the driver; where there is none, or the job has no graphics processors, nothing is known.

    They belong to the job alone, so what they do is done for it. Source: NVIDIA Management Library,
    nvmlDeviceGetUtilizationRates and nvmlDeviceGetMemoryInfo.

    Args:
        ids: Theirs, as `CUDA_VISIBLE_DEVICES` has them: numbers, or UUIDs.
    """

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids
        self._nvml: Any = None
        self._handles: list[Any] = []

    def read(self) -> tuple[float | None, float | None]:
        """How many of them are busy, such as 1.5, and how many MB of their memory are taken."""
        if not self._ids:
            return None, None
        if self._nvml is None and not self._find():
            self._ids = ()
            return None, None
        try:
            busy = sum(self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu for handle in self._handles)
            taken = sum(self._nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in self._handles)
        except self._nvml.NVMLError:
            return None, None
        return round(busy / 100, 3), round(taken / _MEGABYTE, 1)

    def _find(self) -> bool:
        try:
            # Only who has such processors pays for the import.
            import pynvml  # noqa: PLC0415
        except ImportError:
            return False
        try:
            pynvml.nvmlInit()
            self._handles = [_handle(pynvml, id_) for id_ in self._ids]
        except pynvml.NVMLError:
            return False
        self._nvml = pynvml
        return True


def _handle(nvml: Any, id_: str) -> Any:
    return nvml.nvmlDeviceGetHandleByIndex(int(id_)) if id_.isdecimal() else nvml.nvmlDeviceGetHandleByUUID(id_)
