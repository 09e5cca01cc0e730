"""The pages are correct: each code block is checked by its language, and tables match the code."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import shlex
import subprocess
from collections.abc import Callable, Iterator
from configparser import RawConfigParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from airflow.cli import cli_parser
from pydantic.alias_generators import to_camel

from airflow_training.api.parameters import CONNECTION_PARAMETERS, TrainingParameters, overridden
from airflow_training.cli.job_file import read_job_file
from airflow_training.cli.main import app
from airflow_training.get_provider_info import get_provider_info
from airflow_training.hooks.training import EXTRA_FIELDS
from airflow_training.operators.training import TrainingOperator
from tests.pages import DOCS, PAGES, PROJECT, Block, blocks

BLOCKS = [block for page in PAGES for block in blocks(page)]
RECIPES = DOCS / "recipes.md"

# Commands in running text. CHANGELOG.md abbreviates them: `clients add|rotate`.
COMMANDS_IN_TEXT = [
    Block(page, 1 + page.read_text()[: found.start()].count("\n"), "sh", found[1])
    for page in PAGES
    if page.name != "CHANGELOG.md"
    for found in re.finditer(
        r"(?<!`)`((?:airflow-training|airflow|make|\S*python -m) [a-z][^`]*)`(?!`)", page.read_text()
    )
]


def check_python(block: Block, folder: Path) -> None:
    if block.page == RECIPES:  # parts of files, see below
        return
    compile(block.text, str(block), "exec")
    if "from airflow.sdk import" in block.text or block.text.startswith("TrainingOperator(\n"):
        file = folder / "dag.py"
        file.write_text(block.text)
        # A script that is not beside the file is an error when the Dag is read.
        for name in re.findall(r'script="(\w+\.py)"', block.text):
            (folder / name).touch()
        runpy.run_path(str(file), {"TrainingOperator": TrainingOperator})


def check_yaml(block: Block, folder: Path) -> None:
    content = yaml.safe_load(block.text)
    if "job" in content and "files" in content:
        check_job_file(block.text, folder)


def check_job_file(text: str, folder: Path) -> None:
    """Check a job file, with files for its paths."""
    at = folder / "jobs/job.yaml"
    at.parent.mkdir()
    for place in yaml.safe_load(text)["files"].values():
        file = at.parent / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    at.write_text(text)
    read_job_file(at)


def check_ini(block: Block, folder: Path) -> None:
    # In systemd units a setting can continue in the next line, and names are case-sensitive.
    parser = RawConfigParser(strict=False)
    parser.read_string(block.text)
    assert parser.sections()


def check_json(block: Block, folder: Path) -> None:
    json.loads(block.text)


def check_shell(block: Block, folder: Path) -> None:
    done = subprocess.run(["sh", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name, text in re.findall(r"cat > (\S+) <<'END'\n(.*?)^END$", block.text, re.MULTILINE | re.DOTALL):
        if name.endswith(".py"):
            check_python(Block(block.page, block.line, "python", text), folder)
        if name.endswith(".yaml"):
            check_job_file(text, folder)
    for words in commands(block.text):
        check_command(words, folder)


def check_text(block: Block, folder: Path) -> None:
    """Check the commands in output and drawings."""
    for line in block.text.splitlines():
        if line.startswith("airflow-training "):
            check_command(shlex.split(line.split("   ")[0]), folder)


CHECKS: dict[str, Callable[[Block, Path], None]] = {
    "ini": check_ini,
    "json": check_json,
    "python": check_python,
    "sh": check_shell,
    "text": check_text,
    "yaml": check_yaml,
}


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_is_what_its_fence_says(block: Block, tmp_path: Path) -> None:
    assert block.language in CHECKS, f"a fence says one of {', '.join(CHECKS)}"
    CHECKS[block.language](block, tmp_path)


@pytest.mark.parametrize("command", COMMANDS_IN_TEXT, ids=str)
def test_a_command_in_the_text_is_one(command: Block, tmp_path: Path) -> None:
    for words in commands(command.text):
        check_command(words, tmp_path, named_only=len(words) <= 3)


def commands(shell: str) -> Iterator[list[str]]:
    """The commands in a shell script, without variable assignments and redirections."""
    shell = re.sub(r"<<'?(\w+)'?(.*?\n).*?^\1$", r"\2", shell, flags=re.MULTILINE | re.DOTALL)
    shell = re.sub(r"\\\n|(^|\s)#.*|\s\d?[<>]+&?\s*[\w./-]+", " ", shell, flags=re.MULTILINE)
    # A command substitution in double quotes is also checked; duplicates do no harm.
    shell += "".join(f"\n{inner}" for inner in re.findall(r'"\$\(([^()]*)\)"', shell))
    lexer = shlex.shlex(shell, posix=True, punctuation_chars=";<>|&()\n")
    lexer.whitespace, lexer.whitespace_split = " \t", True
    words: list[str] = []
    for token in [*lexer, "\n"]:
        if not set(token) <= set(";<>|&()\n"):
            words.append(token)
            continue
        while words and re.match(r"\w+=", words[0]):
            del words[0]
        if words:
            yield words
        words = []


def check_command(words: list[str], folder: Path, *, named_only: bool = False) -> None:
    """Check that a command of this package, of Airflow or of the Makefile exists, with its options.

    Args:
        words: The command.
        folder: A folder for its files.
        named_only: Whether required arguments may be missing.
    """
    program, *arguments = words
    if Path(program).name == "airflow-training":
        check_our_command(arguments, folder, named_only=named_only)
    elif Path(program).name == "airflow" and arguments != ["standalone"]:
        assert airflow_knows([*arguments, *(["--help"] if named_only else [])])
    elif program == "make":
        targets = re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in arguments if "=" not in word} <= set(targets)
    elif Path(program).name.startswith("python") and arguments[0] == "-m":
        assert find_spec(arguments[1])


def airflow_knows(arguments: list[str]) -> bool:
    try:
        cli_parser.get_parser().parse_args(arguments)
    except SystemExit as ended:
        return ended.code == 0
    return True


def check_our_command(arguments: list[str], folder: Path, *, named_only: bool) -> None:
    secret = folder / "secret"
    secret.touch()
    # The value may be a file that must exist.
    after = {"--secret-file": str(secret)}
    arguments = [after.get(before, word) for before, word in zip(["", *arguments], arguments, strict=False)]
    # Placeholders for a job id.
    some_job = "00000000-0000-0000-0000-000000000000"
    arguments = [some_job if word in ("ID", "$job") else word for word in arguments]
    command: Any = typer.main.get_command(app)
    context = None
    while hasattr(command, "commands") and arguments and not arguments[0].startswith("-"):
        assert arguments[0] in command.commands, f"there is no command {arguments[0]}"
        command, arguments = command.commands[arguments[0]], arguments[1:]
    if arguments in (["--help"], ["--install-completion"]):
        return
    if not arguments and (named_only or hasattr(command, "commands")):
        return
    context = command.make_context(command.name, arguments)
    context.close()


def test_the_links_of_the_readme_lead_to_files() -> None:
    # The build of the site checks the links of all other pages.
    links = re.findall(r"\]\(([^\s():]+)\)", (PROJECT / "README.md").read_text())
    assert links
    assert [link for link in links if not (PROJECT / link).is_file()] == []


def test_the_recipes_are_the_dags_line_by_line() -> None:
    pieces: dict[str, str] = {}
    sections = re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", RECIPES.read_text(), re.MULTILINE | re.DOTALL)
    for name, section in sections:
        pieces[name] = "\n".join(re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL))

    assert set(pieces) == {file.stem for file in (PROJECT / "dags").glob("*.py")}
    for name, text in pieces.items():
        file = (PROJECT / f"dags/{name}.py").read_text()
        assert [line for line in text.splitlines() if line] == [line for line in file.splitlines() if line]


def test_the_page_of_the_operator_names_every_argument_and_no_other() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (yes|no) \|", (DOCS / "operator.md").read_text(), re.MULTILINE)
    arguments = inspect.signature(TrainingOperator.__init__).parameters.values()
    templates = {
        {v: k for k, v in TrainingOperator.PARAMETERS.items()}.get(n, n) for n in TrainingOperator.template_fields
    }
    assert rows == [
        (
            argument.name,
            "required" if argument.default is argument.empty else f"`{argument.default!r}`".replace("'", '"'),
            "yes" if argument.name in templates else "no",
        )
        for argument in arguments
        if argument.kind is argument.KEYWORD_ONLY
    ]


def test_the_page_of_the_connection_names_every_field_and_no_other() -> None:
    (connection,) = get_provider_info()["connection-types"]
    rows = re.findall(r"^\| extra (.*?) \|", (DOCS / "connection.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert (
        named - {"verify", "cert", "proxies", "timeout", "trust_env"} == EXTRA_FIELDS == set(connection["conn-fields"])
    )


def test_the_page_of_trainingclient_names_every_parameter() -> None:
    page = (DOCS / "trainingclient.md").read_text()
    rows = re.findall(r"^\| (`.*?) \|", page, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    (configured,) = [json.loads(block.text) for block in blocks(DOCS / "trainingclient.md") if block.language == "json"]
    assert named == set(configured)
    assert named - CONNECTION_PARAMETERS <= {to_camel(name) for name in TrainingParameters.model_fields}


def test_what_trainingclient_was_configured_with_is_what_the_task_of_the_page_says(tmp_path: Path) -> None:
    (before,) = [json.loads(block.text) for block in blocks(DOCS / "trainingclient.md") if block.language == "json"]
    (after,) = [block.text for block in blocks(DOCS / "trainingclient.md") if block.language == "python"]
    file = tmp_path / "census.py"
    file.write_text(after)
    task = runpy.run_path(str(file))["train"]
    theirs = {name: value for name, value in before.items() if name not in CONNECTION_PARAMETERS}
    ours = {name: getattr(task, attribute) for name, attribute in TrainingOperator.PARAMETERS.items()}

    assert set(before) - set(theirs) == CONNECTION_PARAMETERS
    given = TrainingParameters.read(overridden({}, theirs)).model_dump(exclude={"script", "data"})
    assert TrainingParameters.read(ours).model_dump(exclude={"script", "data"}) == given
