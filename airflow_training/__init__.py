"""Train models on a remote training service from Apache Airflow.

>>> from airflow_training.operators.training import TrainingOperator  # doctest: +SKIP
"""

__version__ = "0.1.0"
