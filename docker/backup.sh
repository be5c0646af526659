#!/bin/sh
# Writes a backup of the compose deployment into a new folder, also while trainings run: make backup [TO=folder]
# Databases go before objects, because an object is written before the row that points to it. The manifest goes last:
# a folder without it is no backup.
. "$(dirname "$0")/backup-steps.sh"

to=${TO:-backups/$(date -u +%Y-%m-%dT%H%M%SZ)}
mkdir -p "$(dirname "$to")"
mkdir "$to" 2>/dev/null || fail "$to exists or cannot be created: TO=… names a new folder"
trap '[ -e "$to/manifest.json" ] || rm -rf "$to"' EXIT

# The dump is read back completely.
dump() {
    as_role "$1" pg_dump --format=custom </dev/null >"$to/$1.dump" &&
        as_role "$1" pg_restore --file=/dev/null <"$to/$1.dump"
}

# rows DATABASE TABLE: their number in the dump, because the database itself has changed since.
rows() {
    as_role "$1" pg_restore --data-only --table="$2" --file=- <"$to/$1.dump" |
        awk -v name="rows.$1.$2" '/^\\\.$/ { data = 0 } data { rows++ } /^COPY / { data = 1 } END { print name "=" rows + 0 }'
}

began=$(as_role airflow date -u +%Y-%m-%dT%H:%M:%S+00:00 </dev/null) || fail "PostgreSQL does not run. Start it: $compose up -d"
# Airflow points to studies and MLflow runs, so it goes first; MLflow points to objects, so it goes right before them.
for name in airflow optuna mlflow; do
    step "database $name" dump "$name"
done
until=$(as_role airflow date +%s </dev/null)
say "objects"
buckets pull "$until" </dev/null >"$to/objects.tar"

facts="began=$began postgres=$(query airflow 'SHOW server_version' | cut -d' ' -f1)"
for counted in "airflow dag_run" "mlflow runs" "mlflow model_versions" "optuna trials"; do
    facts="$facts $(rows ${counted% *} ${counted#* })"
done
say "manifest"
# shellcheck disable=SC2086 # lists of words without spaces
tar -C "$to" -cf - $files | buckets seal $facts >"$to/manifest.draft"
mv "$to/manifest.draft" "$to/manifest.json"

say "Backup: $to ($(du -sk "$to" | awk '{ printf "%.1f MB", $1 / 1000 }')). Restore: make restore FROM=$to"
say "Keep .env as well, in another place: it is not in the backup. Its AIRFLOW_FERNET_KEY decrypts Airflow's connections."
