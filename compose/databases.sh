# The PostgreSQL image runs this once, on an empty volume: one database each for Airflow and the training service.
psql --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv airflow_password AIRFLOW_DB_PASSWORD
\getenv training_password TRAINING_DB_PASSWORD
CREATE ROLE airflow LOGIN PASSWORD :'airflow_password';
CREATE DATABASE airflow OWNER airflow;
CREATE ROLE training LOGIN PASSWORD :'training_password';
CREATE DATABASE training OWNER training;
REVOKE CONNECT ON DATABASE airflow, training FROM PUBLIC;
SQL
