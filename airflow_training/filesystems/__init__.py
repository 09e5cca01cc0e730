"""The storage of training services as file systems of Airflow."""
