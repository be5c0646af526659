#!/bin/sh
# The MLflow server with log-in. First its tables are migrated to this version; runs and models stay.
set -eu
umask 077
cat >/tmp/auth.ini <<INI
[mlflow]
default_permission = READ
database_uri = $MLFLOW_BACKEND_STORE_URI
admin_username = admin
authorization_function = ${MLFLOW_AUTHORIZATION:-mlflow.server.auth:authenticate_request_basic_auth}
auth_cache_ttl_seconds = 60
INI
export MLFLOW_AUTH_CONFIG_PATH=/tmp/auth.ini
python -m cifar_tasks.deployment.compose.mlflow_admin
# uvicorn kills a worker that is silent for 5 s. On a busy machine a worker is silent for longer while it starts, and the
# server would never run.
exec mlflow server --app-name basic-auth --host 0.0.0.0 --port 5000 --workers "${MLFLOW_WORKERS:-2}" \
  --uvicorn-opts "--timeout-worker-healthcheck 120"
