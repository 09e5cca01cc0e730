"""Airflow tasks that train models."""
