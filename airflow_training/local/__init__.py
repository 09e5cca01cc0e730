"""A training service and a real Airflow on this machine, in a folder of their own: for the demo and for tests."""
