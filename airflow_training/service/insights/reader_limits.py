"""The limits of the programs that read what jobs wrote. Apart from readers.py, since the programs need no asyncio."""

from __future__ import annotations

import os
import resource

# The files may be malicious. Bytes of address space, and seconds of CPU time.
_LIMITS = {resource.RLIMIT_AS: 1024**3, resource.RLIMIT_CPU: 15}


def limit_program() -> None:
    """Limit the memory and CPU time of this process, and give all others precedence."""
    for kind, most in _LIMITS.items():
        hard = resource.getrlimit(kind)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (limit, limit))
    os.nice(10)
