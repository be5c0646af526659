# Functions of backup.sh and restore.sh, which source this file.
set -eu
umask 077
cd "$(dirname "$0")/.."
compose=${COMPOSE:-docker compose}
databases="airflow mlflow optuna"
files="airflow.dump mlflow.dump optuna.dump objects.tar"
trap 'exit 130' INT TERM

say() { echo "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

# step TITLE COMMAND…: prints the title, and the seconds every ten seconds until COMMAND ends. COMMAND has standard input and output.
step() {
    title=$1
    shift
    say "$title"
    (
        seconds=0
        while sleep 10 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
            seconds=$((seconds + 10))
            say "  $title: $seconds s"
        done
    ) </dev/null >/dev/null &
    ticker=$!
    code=0
    "$@" || code=$?
    # Not TERM: a subshell that has just started still has the trap of this shell, and can lose the signal.
    kill -KILL "$ticker" 2>/dev/null || :
    wait "$ticker" 2>/dev/null || :
    return "$code"
}

# as_role DATABASE COMMAND…: in PostgreSQL's container, as the role that owns the database and has its name.
as_role() {
    $compose exec -T postgres sh -c '
        export PGUSER="$1" PGDATABASE="$1" PGHOST="${PGHOST:-127.0.0.1}"
        export PGPASSWORD="$(printenv "$(echo "$1" | tr a-z A-Z)_DB_PASSWORD")"
        shift
        exec "$@"' sh "$@"
}

query() { as_role "$1" psql -X -q -A -t -v ON_ERROR_STOP=1 -c "$2" </dev/null; }

buckets() { $compose run --rm -T backup "$@"; }
