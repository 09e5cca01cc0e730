"""Airflow's way to the training service."""
