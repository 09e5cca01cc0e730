"""The pages about the job API and about running the service are correct."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.pages import DOCS, answers
from tests.patience import PATIENCE
from tests.service.support import RunningService, Tenant

JOB_API = (DOCS / "job-api.md").read_text()
SERVICE = (DOCS / "service.md").read_text()

# A block of shell, and the block with its output if one follows.
EXAMPLES = re.findall(r"^```sh\n(.*?)^```\n(?:\n```(json|text)\n(.*?)^```\n)?", JOB_API, re.MULTILINE | re.DOTALL)
MARK = "--- end of a block ---"
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")


def test_the_job_api_answers_what_its_page_says(service: RunningService, tenant: Tenant, tmp_path: Path) -> None:
    shell = f"echo '\n{MARK}'\n".join(block for block, _, _ in EXAMPLES)
    environment = {
        **os.environ,
        "SERVICE": service.url,
        "CLIENT_ID": tenant.credentials.client_id,
        "CLIENT_SECRET": tenant.credentials.client_secret,
    }
    done = subprocess.run(
        ["sh", "-eu", "-c", shell],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    printed = done.stdout.split(MARK)
    assert len(printed) == len(EXAMPLES)
    for (block, _, answer), output in zip(EXAMPLES, printed, strict=True):
        assert answers(answer, output), f"{block}\nprinted\n{output}\nbut the page has\n{answer}"


def test_the_blocks_of_the_page_are_all_tried() -> None:
    assert len(EXAMPLES) == JOB_API.count("```sh\n")
    assert sum(bool(answer) for _, _, answer in EXAMPLES) == JOB_API.count("```json\n") + JOB_API.count("```text\n") - 1
    for _, language, answer in EXAMPLES:
        if language == "json":
            json.loads(answer)


def test_the_page_of_the_service_names_every_option_and_no_other() -> None:
    table = set(re.findall(r"^\| `(--[a-z0-9-]+)", SERVICE, re.MULTILINE))
    assert table == options("serve") - {"--help"}
    others = options("prune") | options("revoke-tokens")
    others |= options("clients", "add") | options("clients", "list") | options("clients", "rotate")
    assert set(OPTION.findall(SERVICE)) <= table | others


def test_the_page_of_the_service_names_every_metric_and_no_other(service: RunningService) -> None:
    exported = re.findall(r"^# TYPE (\w+) ", httpx.get(f"{service.url}/metrics").text, re.MULTILINE)
    named = re.findall(r"^\| `(training_\w+)`", SERVICE, re.MULTILINE)
    assert set(named) == {name for name in exported if not name.endswith("_created")}


def options(*command: str) -> set[str]:
    words = [sys.executable, "-m", "airflow_training.cli.main", *command, "--help"]
    wide = {**os.environ, "COLUMNS": "200"}
    return set(OPTION.findall(subprocess.run(words, capture_output=True, text=True, check=True, env=wide).stdout))
