#!/bin/sh
# Writes .env with a random value for each secret that docker-compose.yaml demands. One that is there already is kept,
# because data and services need it; those that a newer version demands are added.
set -eu
umask 077
cd "$(dirname "$0")/.."
# For the users in containers, also in a clone that was made with another umask; only its owner may.
chmod go+r docker/*.sh 2>/dev/null || true
random() { # $1 bytes, in characters without meaning for URLs and shells
    head -c "$1" /dev/urandom | base64 | tr -d '\n' | tr '+/' '-_'
}
before='^[[:space:]]*(export +)?' after='[[:space:]]*[=:][[:space:]]*' # as Compose reads a line
missing() { # a line for each secret that .env does not have
    grep -o '\${[A-Z0-9_]*:?run make secrets}' docker-compose.yaml | tr -d '${' | cut -d: -f1 | sort -u | while read -r name; do
        grep -Eq "$before$name$after(\"[^\"]|'[^']|[^[:space:]\"'#]|#[^[:space:]])" "$1" && continue
        case $name in
            AIRFLOW_FERNET_KEY) echo "$name=$(random 32)" ;; # a Fernet key is 32 bytes, padded
            *) echo "$name=$(random 48)" ;;
        esac
    done
}
draft=$(mktemp .env.XXXXXX)
trap 'rm -f "$draft"' EXIT
if [ -e .env ]; then
    missing .env >"$draft"
    if [ ! -s "$draft" ]; then
        echo ".env has all secrets already. To replace them, move it away first; the data of this deployment need it."
        exit
    fi
    names=$(cut -d= -f1 "$draft" | tr '\n' ' ')
    # Lines of these secrets that are there already have no value.
    { grep -vE "$before($(cut -d= -f1 "$draft" | paste -sd '|' -))$after" .env || true; echo; cat "$draft"; } >"$draft.whole"
    mv "$draft.whole" .env
    echo "Added to .env: ${names% }. The other secrets are as they were."
    exit
fi
{
    echo "# Secrets of this deployment: not for version control, not for an image. Keep a copy beside the backups."
    echo "COMPOSE_PROJECT_NAME=cifar"
    echo
    missing /dev/null
    cat <<'SETTINGS'

# Settings, with their defaults.
# AIRFLOW_PORT=8080
# MLFLOW_PORT=5000
# Trainings at the same time: GPU workers, and slots of the pool `gpu`.
# CIFAR_GPU_SLOTS=2
# CIFAR_SCHEDULE="0 3 * * 1"
# CIFAR_SCHEDULE_TIMEZONE=Europe/Berlin
# Folder of this machine that workers see as /sources.
# SOURCES=/srv/pictures
# Public images by digest: docker buildx imagetools inspect postgres:17-bookworm
# POSTGRES_IMAGE=postgres:17-bookworm@sha256:…
# REDIS_IMAGE=redis:7-bookworm@sha256:…
# PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…
SETTINGS
} >"$draft"
mv "$draft" .env
trap - EXIT
echo "Wrote .env: $(grep -c '^[A-Z0-9_]*=.\{40,\}' .env) secrets, readable by you only. Start: docker compose up -d --build"
