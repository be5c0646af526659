"""SeaweedFS with an identity a role: writes who may do what from the environment, then becomes the server.

An identity is allowed what it needs of which bucket; that trainers may not delete is the buckets' own policy
(`docker/deployment.py`), because SeaweedFS's `Write` includes deleting.
"""

import json
import os
from pathlib import Path

CONFIG = Path("/tmp/s3.json")  # noqa: S108 – a tmpfs that only this container sees
CIFAR, MLFLOW, LOGS = "cifar", "mlflow", "logs"


def identity(name: str, *actions: str) -> dict[str, object]:
    secret = os.environ["AWS_SECRET_ACCESS_KEY" if name == "admin" else f"S3_{name.upper()}_SECRET_KEY"]
    return {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "actions": list(actions)}


def may(actions: str, *buckets: str) -> list[str]:
    return [f"{action}:{bucket}" for bucket in buckets for action in actions.split()]


def main() -> None:
    identities = [
        identity("admin", "Admin"),
        identity("trainer", *may("Read Write List", CIFAR, LOGS)),
        identity("mlflow", *may("Read Write List", MLFLOW)),
        identity("reader", *may("Read List", CIFAR, LOGS)),
    ]
    CONFIG.write_text(json.dumps({"identities": identities}))
    CONFIG.chmod(0o600)
    options = {
        "dir": "/data",
        "ip": "storage",
        "ip.bind": "0.0.0.0",  # noqa: S104 – reachable from the internal network only
        "s3.config": CONFIG,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",
        "admin.ui": "false",
        "webdav": "false",
        "master.telemetry": "false",
    }
    words = ["weed", "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items())]
    os.execvp(words[0], words)  # noqa: S606


if __name__ == "__main__":
    main()
