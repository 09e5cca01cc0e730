"""Quotes the package's error messages in docs/troubleshooting.md: `make messages`.

A message is written once, in the source, beside its code. Its first line becomes the quote below the heading of the
code, with braces for what varies. A new code gets an entry, whose cause and fix are left to write.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "troubleshooting.md"
TREES = {
    file.relative_to(CHECKOUT): ast.parse(file.read_text(encoding="utf-8"))
    for file in sorted((CHECKOUT / "airflow_training").rglob("*.py"))
}
_WIDTH = 120


@dataclass(frozen=True)
class Message:
    """A message with a code in the package.

    Attributes:
        place: File and line.
        code: The code.
        text: Its first line, with a name in braces for each placeholder; empty if it is not a literal.
    """

    place: str
    code: str
    text: str


def code_of(call: ast.Call) -> ast.expr | None:
    """The code that is passed to an error, or to a function that creates one."""
    return next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)


def messages() -> Iterator[Message]:
    """Every message of the package whose code is a literal."""
    for file, tree in TREES.items():
        returned = {
            function.name: end.value
            for function in ast.walk(tree)
            if isinstance(function, ast.FunctionDef)
            and isinstance(end := function.body[-1], ast.Return)
            and isinstance(end.value, ast.JoinedStr)
        }
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and isinstance(code := code_of(call), ast.Constant):
                if not isinstance(code.value, str):
                    continue  # the exit code of a command
                # The first argument of an OAuth2 error is its OAuth2 code.
                texts = [text for argument in call.args if (text := _text(argument, returned))]
                yield Message(f"{file}:{call.lineno}", code.value, texts[-1].split("\n")[0] if texts else "")


def updated(page: str) -> str:
    """The page with the messages of the package, and an entry for each new code."""
    parts = [part.strip() for part in re.split(r"^(?=##)", page, flags=re.MULTILINE)]
    for code, text in sorted({message.code: message.text for message in messages()}.items()):
        heading = f"### {code}"
        # A name in braces stays on one line.
        words = re.sub(r"\{.*?\}", lambda name: name[0].replace(" ", "\0"), text)
        lines = textwrap.wrap(words, _WIDTH - len("> "), break_long_words=False, break_on_hyphens=False)
        entry = "\n> ".join([f"{heading}\n", *lines]).replace("\0", " ")
        *_, at = (at for at, part in enumerate(parts) if part.startswith("###") and part[: len(heading)] <= heading)
        if parts[at].startswith(heading):
            parts[at] = f"{entry}\n\n" + re.sub(r"^###.*\n+(>.*\n+)*", "", parts[at])
        else:
            parts.insert(at + 1, f"{entry}\n\n- **Cause:**\n- **Fix:**")
    return "\n\n".join(parts) + "\n"


def _text(node: ast.expr, returned: Mapping[str, ast.JoinedStr]) -> str:
    """The text of a literal, with a name in braces for each placeholder.

    Args:
        node: The literal, or a part of it; anything else has no text.
        returned: The texts that functions of the module return: a call of one is replaced with its text.
    """
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part, returned) for part in node.values)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.FormattedValue):
        return ""
    if isinstance(node.value, ast.Call) and (rest := returned.get(_name(node.value.func))):
        return _text(rest, {})
    name = _name(node.value).replace("strerror", "reason").strip("_").replace("_", " ").lower() or "…"
    # repr() puts quotes around a text, but not around an error.
    return f"'{{{name}}}'" if node.conversion == ord("r") and name != "error" else f"{{{name}}}"


def _name(node: ast.expr) -> str:
    """The name of what a placeholder shows; empty if nothing readable can be derived."""
    match node:
        case ast.Name(name) | ast.Attribute(_, name) | ast.Subscript(_, ast.Constant(str(name))):
            return name
        case ast.Call(ast.Name(function), [inner, *_]) if hasattr(builtins, function):
            return "number" if function == "len" else _name(inner)
        case ast.Call(ast.Attribute(ast.Constant(), "join"), [inner]) | ast.BoolOp(_, [inner, *_]):
            return _name(inner)
        case ast.Call(ast.Attribute(inner, method)) if hasattr(str, method):
            return _name(inner)
        case ast.Call(inner) | ast.Subscript(inner):
            return _name(inner)
    return ""


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
