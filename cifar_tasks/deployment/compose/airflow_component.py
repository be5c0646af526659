"""Starts a component of Airflow, once its secrets are known to be those of the deployment: `… scheduler`."""

import json
import os
import sys

from cifar_tasks.storage.s3 import S3Store, sha256_hex

SHARED_SECRETS = ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY")
"""The same in all components, on every machine. Otherwise tasks fail, with messages that do not name the cause."""
FINGERPRINTS = "deployment/secrets.json"
"""Key of the object with the SHA-256 of each, which `init` writes."""


def fingerprints() -> dict[str, str]:
    """Of 256 random bits, so the secret cannot be guessed from it."""
    return {name: sha256_hex(os.environ[name].encode()) for name in SHARED_SECRETS}


def main() -> None:
    recorded = json.loads(S3Store("cifar").get(FINGERPRINTS))
    for name, fingerprint in fingerprints().items():
        if recorded.get(name) != fingerprint:
            sys.exit(
                f"{name} is not the one of this deployment (fingerprint {fingerprint[:12]}…, "
                f"expected {str(recorded.get(name))[:12]}…). Copy it from the .env of the machine of the API server."
            )
    os.execvp("airflow", ["airflow", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()
