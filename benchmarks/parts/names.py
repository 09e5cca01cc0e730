"""Names that the programs of a benchmark share. This module does not import Airflow, which would create its home."""

DAG = "deferred"
TASK = "train"

TRAININGS = "trainings"
SLEEPING = "sleeping"
"""The kinds of triggers."""

STALL = "longest stall"
"""The event that the measuring trigger logs each second, with `seconds`."""
