"""Starts a part of Airflow, once its secrets are known to be those of the deployment: `part.py scheduler …`."""

import json
import os
import sys

from deployment import FINGERPRINTS, fingerprints


def main() -> None:
    import boto3

    known = json.loads(boto3.client("s3").get_object(Bucket="cifar", Key=FINGERPRINTS)["Body"].read())
    for name, fingerprint in fingerprints().items():
        if known.get(name) != fingerprint:
            sys.exit(
                f"{name} is not the one of this deployment (fingerprint {fingerprint[:12]}…, "
                f"expected {str(known.get(name))[:12]}…). Copy it from the .env of the machine of the API server."
            )
    os.execvp("airflow", ["airflow", *sys.argv[1:]])  # noqa: S606


if __name__ == "__main__":
    main()
