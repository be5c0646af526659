"""Buttons on the tab *Details* of a task: its MLflow run, and the report of the whole run.

The tasks push the addresses as soon as they are known, so that running and failed tasks show their buttons too, and
return them. Airflow stores them in XCom under the keys below, and the UI reads them from there.
"""

from airflow.plugins_manager import AirflowPlugin
from airflow.serialization.definitions.operatorlink import XComOperatorLink


class CifarUi(AirflowPlugin):
    """Loaded by the API server only."""

    name = "cifar_ui"
    global_operator_extra_links = (
        XComOperatorLink(name="MLflow run", xcom_key="mlflow_url"),
        XComOperatorLink(name="Report", xcom_key="report_url"),
    )
