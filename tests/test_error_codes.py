"""Every error is in docs/troubleshooting.md, with its code and its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_training.exceptions import JobFailed, RequestRejected, TrainingError

CHECKOUT = Path(__file__).parents[1]
PACKAGE = CHECKOUT / "airflow_training"
PAGE = CHECKOUT / "docs" / "troubleshooting.md"

CODE = re.compile(r"AT-\d{3}")


@dataclass(frozen=True)
class Site:
    """A message with a code in the package.

    Attributes:
        place: File and line.
        code: The code.
        message: The first line of the message, with an ellipsis for each placeholder.
    """

    place: str
    code: str
    message: str


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for file in sorted(PACKAGE.rglob("*.py")):
        yield file.relative_to(CHECKOUT), ast.parse(file.read_text(encoding="utf-8"))


TREES = dict(sources())


def name_of(called: ast.expr) -> str:
    return called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""


def code_of(call: ast.Call) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)


def is_literal(code: ast.expr | None) -> bool:
    return isinstance(code, ast.Constant) and isinstance(code.value, str)


def error_classes() -> dict[str, ast.ClassDef]:
    """The classes of the tree, below TrainingError."""
    classes = [node for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    found: dict[str, ast.ClassDef] = {}
    while more := [
        kind
        for kind in classes
        if kind.name not in found and {name_of(base) for base in kind.bases} & {"TrainingError", *found}
    ]:
        found |= {kind.name: kind for kind in more}
    return found


def knows_its_code(kind: ast.ClassDef) -> bool:
    return any(is_literal(code_of(node)) for node in ast.walk(kind) if isinstance(node, ast.Call))


def calls(node: ast.AST, handed_on: frozenset[str] = frozenset()) -> Iterator[tuple[ast.Call, frozenset[str]]]:
    """Every call, with the names of the parameters of the enclosing functions."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        handed_on |= {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
    for inner in ast.iter_child_nodes(node):
        if isinstance(inner, ast.Call):
            yield inner, handed_on
        yield from calls(inner, handed_on)


def first_line(message: ast.expr) -> str | None:
    """The first line of a literal text; None if it is not a literal."""
    if isinstance(message, ast.Constant) and isinstance(message.value, str):
        return message.value.split("\n")[0]
    if isinstance(message, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in message.values]
        return "".join(parts).split("\n")[0]
    return None


def sites() -> list[Site]:
    found = []
    for file, tree in TREES.items():
        for call, _ in calls(tree):
            code = code_of(call)
            if isinstance(code, ast.Constant) and isinstance(code.value, str):
                # The first argument of an OAuth2 error is its OAuth2 code.
                texts = [line for argument in call.args if (line := first_line(argument)) is not None]
                found.append(Site(f"{file}:{call.lineno}", code.value, texts[-1] if texts else ""))
    return found


@cache
def entries() -> dict[str, str]:
    """The entries of the page: code → the message that is quoted there, in one line."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^### (.*)\n\n((?:> .*\n)+)", text, re.MULTILINE)
    assert len(found) == len(re.findall(r"^### ", text, re.MULTILINE)), "an entry is a code, and a message below it"
    return {code: " ".join(line.removeprefix("> ") for line in quoted.splitlines()) for code, quoted in found}


SITES = sites()


def test_every_error_of_the_package_is_made_with_a_code() -> None:
    classes = error_classes()
    own = {name for name, kind in classes.items() if knows_its_code(kind)}
    assert {"InvalidParameters"} == own
    without = [
        f"{file}:{call.lineno}"
        for file, tree in TREES.items()
        for call, _ in calls(tree)
        if name_of(call.func) in {"TrainingError", "coded", *classes} - own and not code_of(call)
    ]
    assert not without


def test_a_code_is_a_literal_beside_its_message() -> None:
    elsewhere = [
        f"{file}:{call.lineno}"
        for file, tree in TREES.items()
        for call, handed_on in calls(tree)
        if (code := code_of(call))
        and not is_literal(code)
        # Passed through by a function that creates errors, or from the event of a trigger.
        and not (isinstance(code, ast.Name) and code.id == "code" and "code" in handed_on)
        and ast.unparse(code) != "event['code']"
        and ast.unparse(code) != "self.code"
    ]
    assert not elsewhere
    assert not [site.place for site in SITES if not site.message]


def test_a_code_belongs_to_one_message() -> None:
    messages: dict[str, set[str]] = {}
    for site in SITES:
        messages.setdefault(site.code, set()).add(site.message)
    assert not {code: of_code for code, of_code in messages.items() if len(of_code) > 1}
    assert not [code for code in messages if not CODE.fullmatch(code)]


def test_the_page_has_the_codes_of_the_package_in_their_order() -> None:
    codes = {site.code for site in SITES}
    there = list(entries())
    assert sorted(codes - set(there)) == [], "without an entry"
    assert sorted(set(there) - codes) == [], "nothing gives this code any more"
    assert not [(one, next_one) for one, next_one in pairwise(there) if one >= next_one]


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.code)
def test_an_entry_quotes_its_message(site: Site) -> None:
    pattern = ".+".join(re.escape(part) for part in site.message.split("…"))
    # The rest of a message may come from elsewhere.
    assert re.match(pattern, entries().get(site.code, ""))


def test_every_code_in_the_docs_exists() -> None:
    named = {
        (file.name, code)
        for file in (*(CHECKOUT / "docs").glob("*.md"), CHECKOUT / "README.md")
        for code in CODE.findall(file.read_text(encoding="utf-8"))
    }
    assert not {(file, code) for file, code in named if code not in entries()}


def test_the_code_ends_the_first_line() -> None:
    error = JobFailed("The job failed.\nlast words\n", code="AT-401", job_id="1")
    assert str(error) == "The job failed. [AT-401]\nlast words\n"
    assert (error.message, error.code) == ("The job failed.\nlast words\n", "AT-401")


def test_an_error_within_another_keeps_its_code() -> None:
    inner: TrainingError = RequestRejected("No.", status=403, code="AT-211")
    assert str(TrainingError(f"{inner} The job goes on.", code="AT-431")) == "No. [AT-211] The job goes on. [AT-431]"
