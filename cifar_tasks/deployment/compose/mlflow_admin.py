"""Before the MLflow server starts: its tables are migrated, and its admin gets the password of `.env`, which the server
itself sets only when it creates the user."""

import os


def main() -> None:
    from mlflow.db import upgrade
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    url = os.environ["MLFLOW_BACKEND_STORE_URI"]
    upgrade.main(args=[url], standalone_mode=False)  # in this process: the command's words are in the process list
    store = SqlAlchemyStore()
    store.init_db(url)  # type: ignore[no-untyped-call]
    if store.has_user("admin"):
        store.update_user("admin", password=os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"])


if __name__ == "__main__":
    main()
