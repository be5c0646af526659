"""`python -m tests.airflow_worker_user FILE` writes what Airflow answers to its user `worker`: request → status.

Airflow runs in this process, on a database of its own: `AIRFLOW_HOME` is an empty folder. Nothing of Airflow is
imported at the top, because it reads its configuration then.
"""

import json
import os
import sys
from pathlib import Path

RUN = "/api/v2/dags/cifar10_promotion/dagRuns/a_run"
REQUESTS = {
    "write a note": ("PATCH", f"{RUN}?update_mask=note", {"note": "a reason"}),
    "read a run": ("GET", RUN, None),
    "start a run": ("POST", RUN.rpartition("/")[0], {"logical_date": None}),
    "delete a run": ("DELETE", RUN, None),
    "read connections": ("GET", "/api/v2/connections", None),
    "read variables": ("GET", "/api/v2/variables", None),
    "read the configuration": ("GET", "/api/v2/config", None),
    "clear tasks": ("POST", "/api/v2/dags/cifar10_promotion/clearTaskInstances", {}),
}


def main(result: str) -> None:
    from airflow.api_fastapi.app import create_app
    from airflow.cli.cli_parser import get_parser
    from fastapi.testclient import TestClient

    from cifar_tasks.deployment.compose.init import create_airflow_users

    arguments = get_parser().parse_args(["db", "migrate"])
    arguments.func(arguments)
    create_airflow_users()
    old, new = os.environ["AIRFLOW_WORKER_PASSWORD"], "another one"
    os.environ["AIRFLOW_WORKER_PASSWORD"] = new
    create_airflow_users()  # `init` runs before each start
    client = TestClient(create_app())

    def log_in(password: str) -> tuple[int, str]:
        answer = client.post("/auth/token", json={"username": "worker", "password": password})
        return answer.status_code, answer.json().get("access_token", "")

    status, token = log_in(new)
    found = {"log in with the earlier password": log_in(old)[0], "log in": status}
    headers = {"Authorization": f"Bearer {token}"}
    for name, (method, address, body) in REQUESTS.items():
        found[name] = client.request(method, address, headers=headers, json=body).status_code
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
