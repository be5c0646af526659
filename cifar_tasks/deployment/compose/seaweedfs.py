"""Starts SeaweedFS with one identity per role, whose keys and permissions come from the environment.

What trainer and promoter may not write or delete is a policy of the buckets (`init.py`): `Write` includes deleting.
"""

import json
import os
from pathlib import Path

from cifar_tasks.deployment import SEAWEED_VOLUMES
from cifar_tasks.deployment.compose import BUCKETS

CONFIG = Path("/tmp/s3.json")  # noqa: S108 – a tmpfs that only this container sees
WEBHOOK = "http://api-server:8080/dataset-lines/changed"


def identities() -> list[dict[str, object]]:
    """An identity has the actions of its role on each of its buckets; its access key is its name."""
    cifar, mlflow, logs = BUCKETS
    roles = {
        "admin": ["Admin"],
        **{
            user: [f"{action}:{bucket}" for action in ("Read", "Write", "List") for bucket in (cifar, logs)]
            for user in ("trainer", "promoter")
        },
        "mlflow": [f"{action}:{mlflow}" for action in ("Read", "Write", "List")],
        "reader": [f"{action}:{bucket}" for action in ("Read", "List") for bucket in (cifar, logs)],
    }
    secrets = {name: os.environ[f"S3_{name.upper()}_SECRET_KEY"] for name in roles if name != "admin"}
    secrets["admin"] = os.environ["AWS_SECRET_ACCESS_KEY"]
    return [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": secrets[name]}], "actions": actions}
        for name, actions in roles.items()
    ]


def notifications(endpoint: str = WEBHOOK) -> dict[str, str]:
    """Variables that make SeaweedFS tell Airflow of each change in the source of a dataset line, if there is a token.

    It takes them in place of `notification.toml`. Prefixes are separated by spaces; with one in the name of a source
    SeaweedFS tells of more than that source, and Airflow ignores the rest.
    """
    token = os.environ.get("CIFAR_WEBHOOK_TOKEN")
    try:
        lines = json.loads(os.environ.get("CIFAR_DATASET_LINES") or "{}")
        addresses = [str(line["source"]) for line in lines.values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        # Airflow says what is wrong. Storage runs on without it.
        print("CIFAR_DATASET_LINES cannot be read: no notifications", flush=True)  # noqa: T201
        return {}
    sources = [address.removeprefix("s3://") for address in addresses if address.startswith("s3://")]
    if not token or not sources:
        return {}
    values = {
        "enabled": "true",
        "endpoint": endpoint,
        "bearer_token": token,
        "path_prefixes": " ".join(f"/buckets/{source}" for source in sources),
    }
    return {f"WEED_NOTIFICATION_WEBHOOK_{name.upper()}": value for name, value in values.items()}


def main() -> None:
    os.environ.update(notifications())
    CONFIG.write_text(json.dumps({"identities": identities()}))
    CONFIG.chmod(0o600)
    options = {
        "dir": "/data",
        "ip": "storage",
        "ip.bind": "0.0.0.0",  # noqa: S104 – reachable from the internal network only
        "volume.max": SEAWEED_VOLUMES,
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
