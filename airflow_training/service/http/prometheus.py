"""The Prometheus metrics of the service: counts and durations of jobs and requests.

No label names a tenant, a client or a job, since `/metrics` needs no token.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from airflow_training.api.status import JobState, JobStatus
from airflow_training.service.scheduling.job import Progress
from airflow_training.service.scheduling.job_table import JobTable

_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_JOB_SECONDS = (1, 5, 15, 60, 5 * 60, 15 * 60, 3600, 4 * 3600, 12 * 3600, 24 * 3600, 72 * 3600)


class ServiceMetrics:
    """The metrics of one service.

    Args:
        jobs: The job table, which is counted at each scrape.
    """

    def __init__(self, jobs: JobTable) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_JobsByState(jobs))
        self._requests = Histogram(
            "training_request_seconds",
            "Requests, and the seconds until their reply was sent.",
            ["method", "route", "status"],
            buckets=_REQUEST_SECONDS,
            registry=self._registry,
        )
        self._queue = Histogram(
            "training_job_queue_seconds",
            "Seconds from the submission of a job to its start, counted at its end.",
            buckets=_JOB_SECONDS,
            registry=self._registry,
        )
        self._jobs = Histogram(
            "training_job_seconds",
            "Seconds from the start of a job to its end.",
            ["state"],
            buckets=_JOB_SECONDS,
            registry=self._registry,
        )
        self._log_bytes = Counter(
            "training_job_log_bytes", "Bytes in the logs of jobs that have ended.", registry=self._registry
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request.

        Args:
            method: The HTTP method.
            route: The path with placeholders instead of ids, which bounds the number of labels.
            status: The HTTP status of the reply.
            seconds: From the request to the end of its reply.
        """
        self._requests.labels(method, route, str(status)).observe(seconds)

    def job_ended(self, progress: Progress, status: JobStatus) -> None:
        """Count a job that has ended."""
        if status.submission_time and status.start_time:
            self._queue.observe((status.start_time - status.submission_time).total_seconds())
        if status.duration:
            self._jobs.labels(status.state.value).observe(status.duration.total_seconds())
        self._log_bytes.inc(progress.log_bytes)

    def exposition(self) -> bytes:
        """The metrics in the Prometheus text format."""
        return generate_latest(self._registry)


class _JobsByState(Collector):
    def __init__(self, jobs: JobTable) -> None:
        self._table = jobs

    def collect(self) -> Iterator[Metric]:
        counts = self._table.counts()
        jobs = GaugeMetricFamily("training_jobs", "Jobs by state.", labels=["state"])
        for state in JobState:
            if state is not JobState.UNKNOWN:
                jobs.add_metric([state.value], counts.get(state, 0))
        yield jobs
