"""The XComs of a training: what a task publishes about its job."""

from __future__ import annotations

JOB_ID_KEY = "training_job_id"
"""The id of the job that this try of the task has claimed."""

CLAIM_KEY = "training_claim"
"""The same with what a request for the job needs: connection, version of the job API, job name, names of its data."""

STATUS_KEY = "training_status"
"""The status object of the running job."""

CURSOR_KEY = "training_log_cursor"
"""How much of which job's log is in the task log, and the metrics in this part of it."""

RESULT_KEY = "training_job"
"""The result: the job's id, its final status, the model's location, the duration and the metrics."""

DEPLOYED_KEY = "training_deployed"
"""The deployments of a task: a list of the models that it deployed and withdrew, in order of time."""
