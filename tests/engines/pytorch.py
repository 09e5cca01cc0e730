"""Debian's PyTorch, for Debian's Python: the wheels for Linux require gigabytes of libraries for GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

TORCHRUN = "/usr/bin/python3 -m torch.distributed.run --redirects 2 --tee 2"
"""`torchrun`, with options that have underscores: those with dashes are newer than Debian 12.

Standard error is shown by way of a file: with Python 3.11, this version fails if nothing is redirected.
"""

_PACKAGES = Path("/usr/lib/python3/dist-packages")


def require_pytorch() -> None:
    """Skip a test where there is no PyTorch."""
    if not all((_PACKAGES / name).exists() for name in ("torch", "pandas")):
        pytest.skip("there is no PyTorch here: apt install python3-torch python3-pandas, or make engines")
