"""An extension of Griffe, which reads the docstrings for the reference.

Ours head an example with `Example:`, or with nothing where it is short. Griffe knows `Examples:` only, and would take
the prompts for quotations, as Markdown has them.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

import griffe

_HEADED = re.compile(r"^Example:$", re.MULTILINE)
_ALONE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class Examples(griffe.Extension):
    """Heads each example as Griffe knows it."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each object that has been read."""
        if obj.docstring:
            headed = _HEADED.sub("Examples:", obj.docstring.value)
            obj.docstring.value = _ALONE.sub(lambda lines: f"Examples:\n{textwrap.indent(lines[0], '    ')}", headed)
