"""What Airflow's UI gains: the page "Models", and buttons on the tab *Details* of a task.

The tasks push the addresses of their MLflow run and of the report as soon as they are known, so that running and
failed tasks show their buttons too. Airflow stores them in XCom under the keys below, and the UI reads them from there.
"""

from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.plugins_manager import AirflowPlugin
from airflow.serialization.definitions.operatorlink import XComOperatorLink
from models_page.routes import create_app

PREFIX = "models-page"
_VIEW = {"bundle_url": f"{PREFIX}/static/models.js", "icon": f"{PREFIX}/static/models.svg"}


class CifarUi(AirflowPlugin):
    """Loaded by the API server only."""

    name = "cifar_ui"
    global_operator_extra_links = (
        XComOperatorLink(name="MLflow run", xcom_key="mlflow_url"),
        XComOperatorLink(name="Report", xcom_key="report_url"),
        XComOperatorLink(name="Comparison", xcom_key="comparison_url"),
    )
    fastapi_apps = (
        {
            "name": "Models",
            "url_prefix": f"/{PREFIX}",
            "app": create_app(requires_access_dag("GET", param_dag_id="cifar10_training")),
        },
    )
    react_apps = (
        {**_VIEW, "name": "Models", "destination": "nav", "url_route": "models", "nav_top_level": True},
        {**_VIEW, "name": "Models of this run", "destination": "dag_run", "url_route": "models-of-run"},
    )
