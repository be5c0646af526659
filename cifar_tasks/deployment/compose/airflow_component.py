"""Starts a component of Airflow, once its secrets are known to be those of the deployment: `… scheduler`."""

import json
import os
import sys

from cifar_tasks.errors import CifarError, StackError
from cifar_tasks.storage.s3 import S3Store, sha256_hex

SHARED_SECRETS = ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY")
"""The same in all components, on every machine. Otherwise tasks fail, with messages that do not name the cause."""
FINGERPRINTS = "deployment/secrets.json"
"""Key of the object with the SHA-256 of each, which `init` writes."""


def fingerprints() -> dict[str, str]:
    """Of 256 random bits, so the secret cannot be guessed from it."""
    return {name: sha256_hex(os.environ[name].encode()) for name in SHARED_SECRETS}


def wrong_secrets(store: S3Store) -> list[str]:
    """Those that are not the ones of the deployment; `StackError` before `init` has recorded them."""
    try:
        recorded = json.loads(store.get(FINGERPRINTS))
    except KeyError:
        raise StackError("init has not recorded the secrets in S3: docker compose up -d init") from None
    values = {name: os.environ.get(name, "") for name in SHARED_SECRETS}
    wrong = [name for name, value in values.items() if sha256_hex(value.encode()) != recorded.get(name)]
    return [f"{name} ({'differs' if values[name] else 'is not set'})" for name in wrong]


def main() -> None:
    try:
        wrong = wrong_secrets(S3Store("cifar"))
    except CifarError as error:
        sys.exit(str(error))
    if wrong:
        sys.exit(f"Not as in this deployment: {', '.join(wrong)}. Copy the .env of the machine of the API server.")
    os.execvp("airflow", ["airflow", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()
