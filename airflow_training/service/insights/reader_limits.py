"""What the programs have in common that look into what jobs have written: see programs.py."""

from __future__ import annotations

import os
import resource
from importlib.util import find_spec

INSTALLED = find_spec("tensorboard") is not None
"""Whether TensorBoard is there, whose reader and formats they use."""

# Whoever wrote the files may mean ill: bytes of address space, and seconds of the processor.
_LIMITS = {resource.RLIMIT_AS: 1024**3, resource.RLIMIT_CPU: 15}


def limit_this_program() -> None:
    """Have this program take no more than it is to, and that after all others."""
    for kind, most in _LIMITS.items():
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    os.nice(10)
