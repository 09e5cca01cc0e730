"""The command line, `airflow-training`."""
