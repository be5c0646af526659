"""Sets the password of MLflow's admin to that of `.env`: the server itself does so only when it creates the user."""

import os


def main() -> None:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(os.environ["MLFLOW_BACKEND_STORE_URI"])  # type: ignore[no-untyped-call]
    if store.has_user("admin"):
        store.update_user("admin", password=os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"])


if __name__ == "__main__":
    main()
