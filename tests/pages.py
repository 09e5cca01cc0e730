"""The pages: Markdown files, and the blocks in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parent.parent
DOCS = PROJECT / "docs"
PAGES = [*(PROJECT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")), *sorted(DOCS.glob("*.md"))]
PAGES.append(PROJECT / "dags/census/README.md")

_FENCE = re.compile(r"(?P<fence>```+|~~~+)(?P<language>.*)")


@dataclass(frozen=True)
class Block:
    """A block between fences.

    Attributes:
        page: The file that it is in.
        line: The number of its first line there.
        language: What stands behind the fence.
        text: Its lines.
    """

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in their order."""
    lines = enumerate(page.read_text().splitlines(), start=1)
    for number, line in lines:
        if not (opened := _FENCE.match(line)):
            continue
        inside: list[str] = []
        for _, text in lines:
            if text == opened["fence"]:
                break
            inside.append(text)
        else:
            raise AssertionError(f"{page.name}: the block in line {number} has no end")
        yield Block(page, number + 1, opened["language"], "".join(f"{text}\n" for text in inside))


def answers(page: str, output: str) -> bool:
    """Whether an output is what the page says: word for word, but for spaces and for what `…` stands for."""
    parts = (re.escape("".join(part.split())) for part in page.split("…"))
    return re.fullmatch(".*".join(parts), "".join(output.split())) is not None
