"""The XComs of a training: what a task tells others of its job."""

from __future__ import annotations

JOB_ID_KEY = "training_job_id"
"""Each try of a task claims its job here: the job's id."""

CLAIM_KEY = "training_claim"
"""The same with what it takes to ask for the job: connection, version of the job API, name, and its data's names."""

STATUS_KEY = "training_status"
"""The status object of the running job."""

CURSOR_KEY = "training_log_cursor"
"""How much of which job's log is in the task log, and the metrics that this part of it told."""

RESULT_KEY = "training_job"
"""The result: the job's id, its final status, the model's location, the duration and the metrics."""

DEPLOYED_KEY = "training_deployed"
"""What a task did to what is served: a list of models that it deployed and withdrew, in the order of time."""
