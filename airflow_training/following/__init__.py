"""Following a job from Airflow to its end: task log, XCom, deadlines, metrics."""
