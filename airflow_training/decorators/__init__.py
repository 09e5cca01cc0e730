"""`@task.training`: a Python function as a training script."""
