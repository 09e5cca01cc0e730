"""The job API over HTTP and S3, asynchronously. Knows nothing of Airflow."""
