"""What a new try of a task does with the job of an earlier one: go on with it, or leave it and start the next."""

from __future__ import annotations

import logging
from typing import Protocol

from airflow_training.api.status import JobState, JobStatus
from airflow_training.client.client import TrainingClient
from airflow_training.exceptions import JobLost, TrainingError, coded
from airflow_training.following import stats
from airflow_training.hooks.training import TrainingHook
from airflow_training.operators.claim import Claim, ClaimStore


class Log(Protocol):
    """The part of Airflow's logger that is needed here."""

    def log(self, level: int, event: str, *args: object) -> object:
        """Write a line."""


class Reattachment:
    """Decides about the job of an earlier try.

    Args:
        store: The task instance's claim.
        log: The task log.
        training_conn_id: The connection that a new job is submitted to.
        durable: Whether a retry goes on with the job of the try before.
        cancel_on_kill: Whether the job of a task that was cleared is canceled.
    """

    def __init__(
        self, store: ClaimStore, log: Log, *, training_conn_id: str, durable: bool, cancel_on_kill: bool
    ) -> None:
        self._store = store
        self._log = log
        self._training_conn_id = training_conn_id
        self._durable = durable
        self._cancel_on_kill = cancel_on_kill

    async def decide(self) -> Claim | int | None:
        """Find the job to go on with, or the generation of the job to start.

        Returns:
            The claim to go on with; the generation to start; None where nothing is known of an earlier try.

        Raises:
            TrainingError: The service of the earlier job cannot be asked, or does not let us cancel it.
        """
        claim = self._store.read()
        if claim is None:
            return None
        if claim.over:
            return claim.generation + 1
        cleared = self._store.max_tries > claim.max_tries
        if cleared or not self._durable:
            if self._cancel_on_kill or not cleared:
                await self._cancel(claim)
            return claim.generation + 1
        return await self._retry(claim)

    async def _retry(self, claim: Claim) -> Claim | int:
        status = await _status(claim)
        if status is None and not claim.submitted:
            return claim.generation
        if status is None:
            self._say(
                f"The service lost the job {claim.job_id} of an earlier try: a new one is started", logging.WARNING
            )
            return claim.generation + 1
        said = f"the job {claim.job_id} of an earlier try, which is {status.state.value}"
        if status.state in (JobState.FAILED, JobState.CANCELED):
            self._say(f"A new job is started after {said}")
            return claim.generation + 1
        stats.reattached()
        self._say(f"Going on with {said}")
        return claim if claim.submitted else self._store.write(claim.accepted())

    async def _cancel(self, claim: Claim) -> None:
        try:
            await cancel(claim)
        except TrainingError as error:
            # The service of an earlier connection may be gone for good; this try has one of its own.
            if claim.training_conn_id == self._training_conn_id:
                raise
            told = coded(f"The job {claim.job_id} of an earlier try could not be canceled: {error}", code="AT-416")
            self._say(told, logging.WARNING)
        else:
            self._say(f"Canceled the job {claim.job_id} of an earlier try, to start a new one")

    def _say(self, sentence: str, level: int = logging.INFO) -> None:
        self._log.log(level, sentence)


async def cancel(claim: Claim) -> bool:
    """End the job of a claim, if it still runs, and tell whether the service knows it."""
    async with await _client(claim) as client:
        known = await client.cancel(claim.job_id)
    if known:
        stats.canceled()
    return known


async def unused_generation(store: ClaimStore, client: TrainingClient) -> int:
    """Find a generation whose job is not there yet.

    Where a Dag run was deleted and made again, or where the state store was emptied, the service may know the jobs of
    a former life. They are neither this task's result nor for this task to end.
    """
    generation = 1
    while await client.find(store.job_id(generation)):
        generation += 1
    return generation


async def _status(claim: Claim) -> JobStatus | None:
    async with await _client(claim) as client:
        try:
            return await client.status(claim.job_id)
        except JobLost:
            return None


async def _client(claim: Claim) -> TrainingClient:
    return await TrainingHook(claim.training_conn_id).connect(version=claim.version, known=True)
