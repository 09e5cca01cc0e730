"""Following a job to its end from Airflow: its log, its status, its deadlines."""
