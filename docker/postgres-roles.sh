#!/bin/sh
# A role and a database per service; no role opens the database of another. Runs once, when the cluster is new.
set -eu
create() {
    ROLE_PASSWORD="$2" psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres -v role="$1" <<'SQL'
\getenv password ROLE_PASSWORD
CREATE ROLE :"role" LOGIN PASSWORD :'password' CONNECTION LIMIT 200;
CREATE DATABASE :"role" OWNER :"role" TEMPLATE template0 ENCODING 'UTF8';
REVOKE CONNECT, TEMPORARY ON DATABASE :"role" FROM PUBLIC;
SQL
}
create airflow "$AIRFLOW_DB_PASSWORD"
create celery "$CELERY_DB_PASSWORD"
create mlflow "$MLFLOW_DB_PASSWORD"
create optuna "$OPTUNA_DB_PASSWORD"
