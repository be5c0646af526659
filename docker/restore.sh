#!/bin/sh
# Restores a backup into a deployment that has not run yet: make restore FROM=folder [FORCE=1]
# Nothing changes before every file of the backup is verified. With FORCE=1 what the deployment holds is lost.
. "$(dirname "$0")/backup-steps.sh"

from=${FROM:-}
[ -n "$from" ] || fail "FROM=… names the folder of a backup: make restore FROM=backups/…"
[ -e "$from/manifest.json" ] || fail "$from has no manifest.json: it is no backup, or it was interrupted"
[ -e .env ] || fail "there is no .env: bring that of the deployment, or write a new one with make secrets"
for file in $files; do
    [ -e "$from/$file" ] || fail "$from/$file is missing"
done

answers() {
    left=60
    until query optuna "SELECT 1" && $compose exec -T storage python -m cifar_tasks.deployment.probes storage </dev/null; do
        left=$((left - 1))
        [ $left -gt 0 ] || return 1
        sleep 2
    done >/dev/null 2>&1
}

# What is there, in words; nothing if the deployment has not run yet.
held() {
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

# Drops all tables of the role, those as well that a newer version made and the backup does not know.
restore() {
    query "$1" "DROP OWNED BY $1 CASCADE" &&
        as_role "$1" pg_restore --dbname="$1" --no-owner --exit-on-error --single-transaction <"$from/$1.dump"
}

say "verifying $from"
# shellcheck disable=SC2086
rows=$(tar -C "$from" -cf - manifest.json $files | buckets verify) || fail "nothing was changed"
$compose up -d --no-recreate postgres redis storage </dev/null
step "PostgreSQL and storage" answers || fail "they do not answer: $compose logs postgres storage. Nothing was changed"
for name in $databases; do
    as_role "$name" pg_restore --list <"$from/$name.dump" >/dev/null || fail "this PostgreSQL cannot read $name.dump. Nothing was changed"
done
held=$(held)
if [ -n "$held" ]; then
    say "This deployment has run already. It holds"
    say "$held"
    [ "${FORCE:-}" = 1 ] || fail "a restore replaces all that. If it may be lost, say FORCE=1. Nothing was changed"
fi

trap '[ $? = 0 ] || say "The restore is NOT done, and services are stopped. Repair what is said above and run it again with FORCE=1."' EXIT
# shellcheck disable=SC2046
step "stopping what writes" $compose stop $($compose config --services | grep -vx -e postgres -e storage -e redis) </dev/null
$compose exec -T redis redis-cli flushall </dev/null >/dev/null
for name in $databases; do
    step "database $name" restore "$name"
done
say "objects"
buckets push <"$from/objects.tar"
echo "$rows" | while read -r name table count; do
    [ "$count" = 0 ] || [ "$(query "$name" "SELECT count(*) FROM $table")" = "$count" ] || fail "$name.$table does not have $count rows"
done
# Messages to workers are in no backup: without its message's id a task that waited or ran is scheduled anew.
query airflow "UPDATE task_instance SET external_executor_id = NULL WHERE state IN ('queued', 'running', 'restarting')"
say "starting everything; init sets passwords, the pool and the rules of the buckets"
$compose up -d </dev/null
say "Restored $from."
