"""The message of a job that Ray could not set up on a node."""

from __future__ import annotations

import pytest

from airflow_training.service.runners.ray.api import RayJob
from airflow_training.service.runners.ray.submit_and_follow import _loss_reason

# As from Ray 2.60, with a shorter traceback.
STACK = """\
runtime_env setup failed: Failed to set up runtime environment.
Could not create the actor because its associated runtime env failed to be created.
[Node 192.0.2.2] Traceback (most recent call last):
  File "/opt/ray/runtime_env_agent.py", line 561, in _create_runtime_env_with_retry
    runtime_env_context = await asyncio.wait_for(
                          ^^^^^^^^^^^^^^^^^^^^^^^
  File "/opt/ray/utils.py", line 105, in check_output_cmd
    raise SubprocessCalledProcessError(
ray._private.runtime_env.utils.SubprocessCalledProcessError: Run cmd[9] failed with the following details.
Command '['/tmp/ray/virtualenv/bin/python', '-m', 'pip', 'install', '-r', '/tmp/ray/requirements.txt']' returned \
non-zero exit status 1.
Last 50 lines of stdout:
"""


def failed(message: str) -> RayJob:
    return RayJob("FAILED", message, "RUNTIME_ENV_SETUP_FAILURE")


def test_a_node_without_pip_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    why = _loss_reason(failed(f"{STACK}    /tmp/ray/virtualenv/bin/python: No module named pip\n"))

    assert why.endswith("has no pip: install pip there, on each node [AT-487]")
    assert capsys.readouterr().out == ""


def test_the_log_has_the_output_of_pip_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    pip = """\
    WARNING: Retrying after connection broken
    ERROR: No matching distribution found for obstore==0.8.2
    [notice] A new release of pip is available
"""
    why = _loss_reason(failed(STACK + pip))

    reason = "No matching distribution found for obstore==0.8.2"
    assert why == f"Ray could not set up the job on its node: {reason} [AT-488]"
    log = capsys.readouterr().out
    assert "Traceback" not in log
    assert "runtime_env_agent.py" not in log


def test_a_failure_without_pip_has_the_last_line_as_reason() -> None:
    message = f"{STACK.partition('ray._private')[0]}RuntimeError: the disk of the node is full\n"
    assert _loss_reason(failed(message)).startswith("Ray could not set up the job on its node: RuntimeError: the disk")


def test_a_failure_without_a_message_has_no_reason() -> None:
    assert _loss_reason(failed("")) == "Ray could not set up the job on its node: no reason is given [AT-488]"
