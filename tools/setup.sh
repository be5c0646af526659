#!/bin/sh
# Installs the packages of requirements.lock into .venv. Does nothing if they are installed already.
set -eu
umask 022
cd "$(dirname "$0")/.."

needed_gb=12
log=.venv/install.log
stamp=.venv/.installed

fail() {
    echo "error: $*" >&2
    exit 1
}

is_supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

find_python() {
    without_venv=
    set -- python3 python3.13 python3.12 python3.11
    [ -z "${PYTHON:-}" ] || set -- "$PYTHON"
    for candidate in "$@"; do
        is_supported "$candidate" || continue
        if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
        without_venv=$candidate
    done
    if [ -n "$without_venv" ]; then
        fail "$without_venv has no venv module. On Debian or Ubuntu: sudo apt install python3-venv"
    elif [ -n "${PYTHON:-}" ]; then
        fail "PYTHON=$PYTHON is not Python 3.11, 3.12 or 3.13."
    fi
    found=$(python3 --version 2>/dev/null) || found="no python3"
    fail "Python 3.11, 3.12 or 3.13 is required; found: $found. Install one, or name it: make setup PYTHON=/path/to/python3.12"
}

# Runs pip in the background, logs its output, and shows the number of fetched packages.
install_lock() {
    total=$(grep -c '^[A-Za-z0-9].*==' requirements.lock)
    TMPDIR="$PWD/.venv/tmp" .venv/bin/python -m pip install --disable-pip-version-check \
        --require-hashes --no-deps -r requirements.lock >"$log" 2>&1 &
    pip=$!
    trap 'kill $pip; exit 130' INT TERM
    while [ -t 1 ] && kill -0 $pip 2>/dev/null; do
        if grep -q '^Installing collected' "$log"; then
            printf '\r  unpacking %s packages   ' "$total"
        else
            printf '\r  fetched %s of %s packages ' "$(grep -cE '^(Collecting|Ignoring|Requirement already)' "$log")" "$total"
        fi
        sleep 1
    done
    wait $pip || fail "pip could not install requirements.lock: $(grep '^ERROR' "$log" | tail -n 1) (log: $log)"
    trap - INT TERM
    [ ! -t 1 ] || printf '\r\033[K'
}

expected="$PWD $(cat requirements.lock pyproject.toml | cksum)"
if [ "$(cat $stamp 2>/dev/null)" = "$expected" ] && is_supported .venv/bin/python; then
    exit 0
fi

free_gb=$(($(df -Pk . | awk 'NR == 2 { print $4 }') / 1048576))
[ -d .venv/lib ] || [ "$free_gb" -ge $needed_gb ] ||
    fail "only $free_gb GB are free in $PWD, $needed_gb GB are required. Free some space, or clone to a larger disk."

if ! is_supported .venv/bin/python; then
    python=$(find_python) || exit 1
    echo "Creating .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || fail "$python could not create a virtual environment in $PWD/.venv"
fi
mkdir -p .venv/tmp
echo "Installing the packages of requirements.lock (the first time takes minutes and some GB; log: $log)"
install_lock
.venv/bin/python -m pip install -q --disable-pip-version-check --no-deps -e . >>"$log" 2>&1 ||
    fail "this project could not be installed: $(grep '^ERROR' "$log" | tail -n 1) (log: $log)"
.venv/bin/python -m pip check >>"$log" 2>&1 || fail "the installed packages are not compatible with each other (log: $log)"
echo "$expected" >$stamp
echo "Ready: .venv"
