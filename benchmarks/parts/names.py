"""Names that programs of a benchmark share. Who imports them needs no Airflow, which would make a folder for itself."""

DAG = "deferred"
TASK = "train"

TRAININGS = "trainings"
SLEEPING = "sleeping"
"""What the tasks are deferred with."""

STALL = "longest stall"
"""What the trigger that measures the loop logs each second, with the `seconds`."""
