#!/bin/sh
# Restores a backup into a deployment that has not run yet: make restore FROM=folder [FORCE=1]
# Nothing changes before all files of the backup are verified. With FORCE=1 the data of the deployment are lost.
. "$(dirname "$0")/backup-steps.sh"

from=${FROM:-}
[ -n "$from" ] || fail "FROM=… names the folder of a backup: make restore FROM=backups/…"
[ -e "$from/manifest.json" ] || fail "$from has no manifest.json: it is no backup, or it was interrupted"
[ -e .env ] || fail "there is no .env: copy that of the deployment, or write a new one with make secrets"
for file in $files; do
    [ -e "$from/$file" ] || fail "$from/$file is missing"
done

ready() {
    left=60
    until query optuna "SELECT 1" && $compose exec -T storage python -m cifar_tasks.deployment.probes storage </dev/null; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        sleep 2
    done >/dev/null 2>&1
}

# Prints the data of the deployment; nothing if it has not run yet.
existing_data() {
    for name in $databases; do
        tables=$(query "$name" "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        [ "$tables" = 0 ] || echo "  database $name: $tables tables"
    done
    if [ "$(query airflow "SELECT to_regclass('dag_run') IS NOT NULL")" = t ]; then
        echo "  DAG runs: $(query airflow 'SELECT count(*) FROM dag_run')"
    fi
    if [ "$(query mlflow "SELECT to_regclass('model_versions') IS NOT NULL")" = t ]; then
        echo "  MLflow: $(query mlflow 'SELECT count(*) FROM runs') runs, $(query mlflow 'SELECT count(*) FROM model_versions') model versions"
    fi
    objects=$(buckets count </dev/null)
    [ "$objects" = 0 ] || echo "  buckets: $objects objects"
}

# Drops all tables of the role, also those of a newer version, which the backup does not have.
restore() {
    query "$1" "DROP OWNED BY $1 CASCADE" &&
        as_role "$1" pg_restore --dbname="$1" --no-owner --exit-on-error --single-transaction <"$from/$1.dump"
}

say "verifying $from"
# shellcheck disable=SC2086
rows=$(tar -C "$from" -cf - manifest.json $files | buckets verify) || fail "nothing was changed"
$compose up -d --no-recreate postgres redis storage </dev/null
step "PostgreSQL and storage" ready || fail "they do not answer: $compose logs postgres storage. Nothing was changed"
for name in $databases; do
    as_role "$name" pg_restore --list <"$from/$name.dump" >/dev/null || fail "this PostgreSQL cannot read $name.dump. Nothing was changed"
done
existing=$(existing_data)
if [ -n "$existing" ]; then
    say "This deployment has run already. It has"
    say "$existing"
    [ "${FORCE:-}" = 1 ] || fail "a restore deletes these data. To do so, add FORCE=1. Nothing was changed"
fi

trap '[ $? = 0 ] || say "The restore is NOT done, and services are stopped. Repair the error above and run it again with FORCE=1."' EXIT
# shellcheck disable=SC2046
step "stopping the services that write" $compose stop $($compose config --services | grep -vx -e postgres -e storage -e redis) </dev/null
$compose exec -T redis redis-cli flushall </dev/null >/dev/null
for name in $databases; do
    step "database $name" restore "$name"
done
say "objects"
buckets push <"$from/objects.tar"
echo "$rows" | while read -r name table count; do
    [ "$count" = 0 ] || [ "$(query "$name" "SELECT count(*) FROM $table")" = "$count" ] || fail "$name.$table does not have $count rows"
done
# The backup has no messages to workers: without the id of its message a queued or running task is scheduled again.
query airflow "UPDATE task_instance SET external_executor_id = NULL WHERE state IN ('queued', 'running', 'restarting')"
say "starting all services; init sets passwords, the pool and the policies of the buckets"
$compose up -d </dev/null
say "Restored $from."
