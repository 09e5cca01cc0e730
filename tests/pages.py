"""The pages: Markdown files and their code blocks."""

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
    """A fenced code block.

    Attributes:
        page: Its file.
        line: The number of its first line there.
        language: The info string of the fence.
        text: Its content.
    """

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(PROJECT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page in order."""
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
            raise AssertionError(f"{page.name}: the block in line {number} is not closed")
        yield Block(page, number + 1, opened["language"], "".join(f"{text}\n" for text in inside))


def answers(page: str, output: str) -> bool:
    """Whether an output matches the page, except for whitespace and `…`."""
    parts = (re.escape("".join(part.split())) for part in page.split("…"))
    return re.fullmatch(".*".join(parts), "".join(output.split())) is not None
