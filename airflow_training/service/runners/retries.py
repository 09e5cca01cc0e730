"""When a job runs again: its `retries`, and what follows the end of its supervisor.

A supervisor repeats an attempt that failed, in the loop of supervisor.py. The service starts another supervisor for a
job whose supervisor ended before the job did.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from airflow_training.exceptions import coded
from airflow_training.service.runners.run_folder import Outcome, Spec, SupervisorRecord, boot_id, is_canceled

# Seconds before an attempt: doubled with each one, up to a minute.
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
# So many supervisors of a job in a row may end within so many seconds of their start: a job that ends each of them must
# not do so forever.
_MOST_IN_A_ROW = 100
_EARLY = 60.0


def has_retry(spec: Spec, attempt: int) -> bool:
    """Whether another attempt may follow."""
    return attempt <= spec.retries


def pause_before(attempt: int) -> float:
    """Seconds to wait before an attempt, which is not the first one.

    >>> pause_before(2), pause_before(3), pause_before(99)
    (1.0, 2.0, 60.0)
    """
    return float(min(_FIRST_PAUSE * 2 ** (attempt - 2), _LONGEST_PAUSE))


def after_supervisor(state: Path, spec: Spec, ended: SupervisorRecord) -> Spec:
    """What the next supervisor of a job does: follow the attempt, make the next one, or end the job.

    Args:
        state: The run folder of the job.
        spec: What the supervisor that ended was to do.
        ended: Its record.

    Raises:
        OSError: The disk is full, for example.
    """
    following = replace(
        spec,
        supervisor=ended.number + 1,
        attempt=ended.attempt,
        notes=[],
        ended_early=spec.ended_early + 1 if time.time() - ended.at < _EARLY else 0,
    )
    if Outcome.exists(state) or (spec.outlives_supervisor and following.ended_early < _MOST_IN_A_ROW):
        return following
    if ended.boot_id != boot_id():
        why = coded("the machine rebooted while the job ran", code="AT-463")
    else:
        why = coded("the job's supervisor was killed while the job ran", code="AT-464")
    if is_canceled(state):
        Outcome("CANCELED", "canceled on request").write(state)
    elif has_retry(spec, ended.attempt):
        attempt = ended.attempt + 1
        return replace(following, attempt=attempt, notes=[f"The job runs again: {why}. This is attempt {attempt}."])
    else:
        Outcome("FAILED", why).write(state)
    return following
