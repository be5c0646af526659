"""`python -m tests.airflow_roles FILE` writes what Airflow answers to a user of each role: role → address → status.

Airflow runs in this process, on a database of its own: `AIRFLOW_HOME` is an empty folder. Nothing of Airflow is
imported at the top, because it reads its configuration then.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE, WEBHOOK = "/models-page", "/dataset-lines"
OWN = (PAGE, WEBHOOK)
PLUGINS = "/api/v2/plugins"
"""Where Airflow's UI learns which plugin pages it shows."""
TRIGGERS = tuple(f"/api/v2/dags/{dag}/dagRuns" for dag in ("cifar10_promotion", "cifar10_rollback"))
"""What the forms of the page send. These DAGs are not in the database here: 404 for whoever may start them."""
PARTS = {"name": "models.js", "dataset": "0" * 16, "number": "1", "sha256": "0" * 64}
NO_LOGIN, NO_PERMISSION, OTHER_DAG, GRANTED = "nobody", "no permission", "another DAG alone", "Viewer with plugins"


def main(result: str) -> None:
    from airflow.api_fastapi.app import create_app, get_auth_manager
    from airflow.cli.cli_parser import get_parser
    from fastapi.testclient import TestClient
    from starlette.routing import Mount

    arguments = get_parser().parse_args(["db", "migrate"])
    arguments.func(arguments)
    app = create_app()
    mounted = {route.path: route.app for route in app.routes if isinstance(route, Mount) and route.path in OWN}
    routes = [
        (method, path + each.path.format(**PARTS))
        for path in OWN
        for each in mounted[path].routes
        for method in each.methods
    ]
    client, manager = TestClient(app), get_auth_manager()

    def answers(token: str) -> dict[str, int]:
        login = {"Authorization": f"Bearer {token}"} if token else {}
        sent = [(method, address, {"key": "s3://team/pets"}) for method, address in [*routes, ("GET", PLUGINS)]]
        sent += [("POST", address, {"conf": {}, "logical_date": None}) for address in TRIGGERS]
        return {
            address: client.request(method, address, headers=login, json=body).status_code
            for method, address, body in sent
        }

    tokens = {NO_LOGIN: ""} | {role: manager.generate_jwt(user) for role, user in users(manager)}
    Path(result).write_text(json.dumps({role: answers(token) for role, token in tokens.items()}))


def users(manager: Any) -> Iterator[tuple[str, Any]]:
    if "Fab" in type(manager).__name__:
        yield from fab_users()
        return
    from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManagerRole
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    yield NO_PERMISSION, SimpleAuthManagerUser(username=NO_PERMISSION, role=None)
    for role in SimpleAuthManagerRole:
        yield role.name.title(), SimpleAuthManagerUser(username=role.name, role=role.name)


def fab_users() -> Iterator[tuple[str, Any]]:
    from airflow.providers.fab.auth_manager.cli_commands.utils import get_application_builder

    grants = {NO_PERMISSION: [], OTHER_DAG: [("can_read", "DAG:other")], GRANTED: [("can_read", "Plugins")]}
    with get_application_builder() as builder:
        for name, permissions in grants.items():
            role = builder.sm.add_role(name)
            for permission in permissions:
                builder.sm.add_permission_to_role(role, builder.sm.create_permission(*permission))
        for name in ("Viewer", "User", "Op", "Admin", *grants):
            roles = [builder.sm.find_role(name)] + ([builder.sm.find_role("Viewer")] if name == GRANTED else [])
            user = builder.sm.add_user(name, name, "", f"{name}@localhost", roles, "password")
            yield name, user


if __name__ == "__main__":
    main(sys.argv[1])
