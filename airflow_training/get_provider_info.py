"""The provider's metadata for Airflow: connection type, operator, trigger and file system."""

from __future__ import annotations

from typing import Any

_TRAINING = "Training service"


def get_provider_info() -> dict[str, Any]:
    """Describe the provider; called by Airflow through the entry point `apache_airflow_provider`."""
    return {
        "package-name": "airflow-training",
        "name": "Training",
        "description": "Trains models on a remote training service, without a worker slot and without losing a job.",
        "integrations": [{"integration-name": _TRAINING, "external-doc-url": "", "tags": ["service"]}],
        "operators": [{"integration-name": _TRAINING, "python-modules": ["airflow_training.operators.training"]}],
        "hooks": [{"integration-name": _TRAINING, "python-modules": ["airflow_training.hooks.training"]}],
        "triggers": [{"integration-name": _TRAINING, "python-modules": ["airflow_training.triggers.training"]}],
        "task-decorators": [{"name": "training", "class-name": "airflow_training.decorators.training.training_task"}],
        "extra-links": ["airflow_training.operators.links.TrainingJobLink"],
        "filesystems": ["airflow_training.filesystems.training"],
        "connection-types": [
            {
                "connection-type": "training",
                "hook-class-name": "airflow_training.hooks.training.TrainingHook",
                "hook-name": _TRAINING,
                "ui-field-behaviour": {
                    "relabeling": {
                        "host": "Job API host",
                        "schema": "Job API schema",
                        "port": "Job API port",
                        "login": "OAuth2 client id",
                        "password": "OAuth2 client secret",
                    },
                    "placeholders": {
                        "host": "training.example.com",
                        "schema": "https",
                        "port": "443",
                    },
                },
                "conn-fields": {
                    "oauth_token_url": {
                        "label": "OAuth2 token URL",
                        "description": "The token endpoint; by default /oauth/token of the job API.",
                        "schema": {"type": ["string", "null"], "format": "url"},
                    },
                    "oauth_auth_method": {
                        "label": "OAuth2 credentials",
                        "description": "How client id and secret are sent: as HTTP Basic, or in the form.",
                        "schema": {
                            "type": ["string", "null"],
                            "enum": ["client_secret_basic", "client_secret_post"],
                            "default": "client_secret_basic",
                        },
                    },
                    "oauth_http_method": {
                        "label": "OAuth2 request",
                        "description": "The method of the token request; with GET the credentials are HTTP Basic.",
                        "schema": {"type": ["string", "null"], "enum": ["POST", "GET"], "default": "POST"},
                    },
                    "oauth_scope": {
                        "label": "OAuth2 scope",
                        "description": "The scopes to request, separated by spaces.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "oauth_audience": {
                        "label": "OAuth2 audience",
                        "description": "The audience of the token request, if the OAuth2 server requires one.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "oauth_headers": {
                        "label": "OAuth2 headers",
                        "description": "Headers of the token request only, as a JSON object.",
                        "schema": {"type": ["string", "null"]},
                    },
                    "api_version": {
                        "label": "Job API version",
                        "description": "The version in the paths of the job API.",
                        "schema": {"type": ["string", "null"], "default": "v2"},
                    },
                    "job_page_url": {
                        "label": "Page of a job",
                        "description": "The target of the button Training job, with the placeholder {job_id}."
                        " By default the page of the task.",
                        "schema": {"type": ["string", "null"]},
                    },
                },
            }
        ],
    }
