"""What people see of trainings in Airflow's UI."""
