"""What Airflow's UI gains: buttons on the tab *Details* of a task, and the picture on the DAG's page.

The buttons open the task's MLflow run and the report of the whole run. The tasks return the addresses, Airflow keeps
them in XCom under the keys named here, and the UI reads them from there. A task without one shows no button.
"""

from pathlib import Path

from airflow.plugins_manager import AirflowPlugin
from airflow.serialization.definitions.operatorlink import XComOperatorLink
from fastapi import FastAPI
from fastapi.responses import FileResponse

pictures = FastAPI(title="Pictures of the training workflow", openapi_url=None)


@pictures.get("/flow.svg")
def flow() -> FileResponse:
    return FileResponse(Path(__file__).with_name("flow.svg"), media_type="image/svg+xml")


class CifarUi(AirflowPlugin):
    """Loaded by the API server only; reads nothing but what the tasks returned."""

    name = "cifar_ui"
    global_operator_extra_links = (
        XComOperatorLink(name="MLflow run", xcom_key="mlflow_url"),
        XComOperatorLink(name="Report", xcom_key="report_url"),
    )
    fastapi_apps = ({"app": pictures, "url_prefix": "/cifar", "name": "cifar pictures"},)
