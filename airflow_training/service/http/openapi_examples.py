"""Examples of what the service answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

_JOB: dict[str, Any] = {
    "job_id": "6f2c1c5e-4f0e-5d1b-9a55-3a1c2b0e7d11",
    "name": "train-census",
    "containerID": "process-4711",
    "status": "RUNNING",
    "submissionTime": "2026-11-24T09:00:00.000000Z",
    "startTime": "2026-11-24T09:00:02.000000Z",
    "finishTime": None,
    "message": "",
}

ANSWERS: dict[str, Any] = {
    "Token": {
        "access_token": "eyJhbGciOiJIUzI1NiJ9.e30.…",
        "token_type": "bearer",
        "expires_in": 43200,
        "scope": "jobs:read jobs:write",
    },
    "TokenError": {
        "error": "invalid_client",
        "error_description": "The client id or the client secret is wrong. [AT-651]",
    },
    "StorageAccess": {
        "status": "Ready",
        "message": "",
        "endpoint": "http://training.example:8901",
        "accessKey": "5A1F0C7E9B3D2A468C0E",
        "secretKey": "…",
    },
    "JobStatus": _JOB,
    "JobList": {"jobs": [_JOB]},
    "JobUsage": {
        "asked": {"cpus": 2, "memory": 4096, "gpus": 1},
        "granted": {"cpus": 2, "memory": 4096, "gpus": 1},
        "samples": [
            {"time": 1795594084.81, "cpus": 1.07, "memory": 412.6, "gpus": 0.0, "gpu_memory": 310.0},
            {"time": 1795594086.81, "cpus": 1.93, "memory": 1730.2, "gpus": 0.87, "gpu_memory": 6144.0},
        ],
    },
    "JobMetrics": {
        "curves": [
            {
                "name": "loss",
                "unit": "epoch",
                "points": [[1795594084.81, 1.0, 0.42], [1795594093.07, 2.0, 0.31]],
                "told": 2,
            }
        ]
    },
    "ModelSummary": {
        "folder": "model/1",
        "files": [
            {"name": "saved_model.pb", "size": 84123},
            {"name": "variables/variables.data-00000-of-00001", "size": 10240},
            {"name": "variables/variables.index", "size": 512},
        ],
        "signatures": [
            {
                "name": "serving_default",
                "inputs": [{"name": "age", "type": "float32", "shape": [None]}],
                "outputs": [{"name": "probability", "type": "float32", "shape": [None, 1]}],
            }
        ],
        "reason": "",
    },
    "ErrorDocument": {
        "error": {
            "code": "404",
            "message": "There is no job 6f2c1c5e: it was not submitted, or has been removed. [AT-611]",
        }
    },
    "Health": {"status": "ok", "database": "ok", "storage": "ok", "runner": "ok"},
}
"""By the name of the schema."""
