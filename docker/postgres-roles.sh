#!/bin/sh
# A role and a database per service; no role opens the database of another. PostgreSQL's image runs it when the cluster is
# new. It may be run again, and by an admin that is no superuser.
set -eu
create() {
    ROLE_PASSWORD="$2" psql -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d postgres -v role="$1" <<'SQL'
\set password `printf %s "$ROLE_PASSWORD"`
SELECT format('CREATE ROLE %I LOGIN CONNECTION LIMIT 200', :'role')
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'role') \gexec
ALTER ROLE :"role" PASSWORD :'password';
GRANT :"role" TO CURRENT_USER; -- who is no superuser gives a database to its own roles only
SELECT format('CREATE DATABASE %I OWNER %I TEMPLATE template0 ENCODING ''UTF8''', :'role', :'role')
    WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'role') \gexec
REVOKE CONNECT, TEMPORARY ON DATABASE :"role" FROM PUBLIC;
SQL
}
create airflow "$AIRFLOW_DB_PASSWORD"
create celery "$CELERY_DB_PASSWORD"
create mlflow "$MLFLOW_DB_PASSWORD"
create optuna "$OPTUNA_DB_PASSWORD"
