"""Every error has a code, and an entry in docs/troubleshooting.md that quotes its message."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

import pytest

from airflow_training.exceptions import JobFailed, RequestRejected, TrainingError
from docs.error_messages import CHECKOUT, PAGE, TREES, Message, code_of, messages, updated

CODE = re.compile(r"AT-\d{3}")
MESSAGES = list(messages())
TEXT = PAGE.read_text(encoding="utf-8")
# Code and entry.
ENTRIES = re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)


def name_of(called: ast.expr) -> str:
    return called.id if isinstance(called, ast.Name) else called.attr if isinstance(called, ast.Attribute) else ""


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
    assert not [message.place for message in MESSAGES if not message.text]


def test_a_code_belongs_to_one_message() -> None:
    texts: dict[str, set[str]] = {}
    for message in MESSAGES:
        texts.setdefault(message.code, set()).add(message.text)
    assert not {code: of_code for code, of_code in texts.items() if len(of_code) > 1}
    assert not [code for code in texts if not CODE.fullmatch(code)]


def test_the_page_has_the_codes_of_the_package_in_their_order() -> None:
    codes = {message.code for message in MESSAGES}
    there = [code for code, _ in ENTRIES]
    assert sorted(codes - set(there)) == [], "without an entry: run `make messages`"
    assert sorted(set(there) - codes) == [], "nothing gives this code any more"
    assert not [(one, next_one) for one, next_one in pairwise(there) if one >= next_one]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.code)
def test_an_entry_quotes_its_message_and_has_a_cause_and_a_fix(message: Message) -> None:
    entry = dict(ENTRIES).get(message.code, "")
    assert " ".join(re.findall(r"^> (.*)", entry, re.MULTILINE)) == message.text, "run `make messages`"
    assert re.findall(r"^- \*\*(Cause|Fix):\*\* \S", entry, re.MULTILINE) == ["Cause", "Fix"]


def test_the_page_is_what_make_messages_writes() -> None:
    # pytest would take seconds to compare the pages.
    is_current = updated(TEXT) == TEXT
    assert is_current, "run `make messages`"


def test_a_new_error_gets_an_entry_in_its_place() -> None:
    (code, entry), (next_code, _) = ENTRIES[1:3]
    quote = entry.split("\n\n")[0]
    assert f"### {code}\n{quote}\n\n- **Cause:**\n- **Fix:**\n\n### {next_code}\n" in updated(
        TEXT.replace(f"### {code}\n{entry}", "")
    )


def test_every_code_in_the_docs_exists() -> None:
    named = {
        (file.name, code)
        for file in (*(CHECKOUT / "docs").glob("*.md"), CHECKOUT / "README.md")
        for code in CODE.findall(file.read_text(encoding="utf-8"))
    }
    assert not {(file, code) for file, code in named if code not in dict(ENTRIES)}


def test_the_code_ends_the_first_line() -> None:
    error = JobFailed("The job failed.\nlast words\n", code="AT-401", job_id="1")
    assert str(error) == "The job failed. [AT-401]\nlast words\n"
    assert (error.message, error.code) == ("The job failed.\nlast words\n", "AT-401")


def test_an_error_within_another_keeps_its_code() -> None:
    inner: TrainingError = RequestRejected("No.", status=403, code="AT-211")
    assert str(TrainingError(f"{inner} The job goes on.", code="AT-431")) == "No. [AT-211] The job goes on. [AT-431]"
