"""Airflow's connection to the training service."""
