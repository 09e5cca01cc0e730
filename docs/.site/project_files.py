"""A hook of mkdocs: a file of the project that a page leads to becomes a page of the site.

Pages lead to files beside docs/, such as `../dags/train_census.py`, which is right on a code host. The site has no such
files, and there is no address where they could be read. So each gets a page: Markdown as what it is, all else as text.
A folder gets none: the site has its name, without a link.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

_PROJECT = Path(__file__).parents[2]
_DOCS = _PROJECT / "docs"
_LINK = re.compile(r"(?<!!)\[(?P<text>[^\[\]]+)\]\((?P<target>[^\s()#:]+)(?P<anchor>#[^\s()]*)?\)")
_LANGUAGES = {".py": "python", ".yaml": "yaml"}

_source_of: dict[str, Path] = {}
"""The files that the pages are made of, by the address of the page within docs/."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file that a page leads to, also for those that such a page leads to."""
    _source_of.clear()
    _source_of.update({page.src_uri: _DOCS / page.src_uri for page in files.documentation_pages()})
    unread = list(_source_of.values())
    while unread:
        for file in _linked_from(unread.pop()):
            if file.is_file() and (uri := _uri(file)) not in _source_of:
                _source_of[uri] = file
                files.append(File.generated(config, uri, content=_content(file)))
                unread.append(file)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Lead the links to such files to their pages."""
    source = _source_of[page.file.src_uri]
    here = PurePosixPath(page.file.src_uri).parent

    def led(link: re.Match[str]) -> str:
        target = _target(source, link["target"])
        if target.is_dir():
            return link["text"]
        if not target.is_file():  # mkdocs says so
            return link[0]
        return f"[{link['text']}]({os.path.relpath(_uri(target), here)}{link['anchor'] or ''})"

    return _LINK.sub(led, markdown) if source.suffix == ".md" else markdown


def _linked_from(source: Path) -> Iterator[Path]:
    if source.suffix == ".md":
        for link in _LINK.finditer(source.read_text(encoding="utf-8")):
            yield _target(source, link["target"])


def _target(source: Path, link: str) -> Path:
    return Path(os.path.normpath(source.parent / link))


def _uri(file: Path) -> str:
    if file.is_relative_to(_DOCS):
        return file.relative_to(_DOCS).as_posix()
    path = PurePosixPath("project", file.relative_to(_PROJECT))
    return str(path if path.suffix == ".md" else path.with_name(f"{path.name}.md"))


def _content(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text
    # A fence that no file has a line of.
    fence = "~" * 12
    name = file.relative_to(_PROJECT).as_posix()
    return f"# {name}\n\n{fence}{_LANGUAGES.get(file.suffix, 'text')}\n{text}{fence}\n"
