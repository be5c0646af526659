"""Buttons on a task's page: its MLflow run, and the report of the whole run.

The tasks leave the addresses in XCom under the keys named here; the UI reads them from there.
"""

from airflow.plugins_manager import AirflowPlugin
from airflow.serialization.definitions.operatorlink import XComOperatorLink


class RunLinks(AirflowPlugin):
    """A task without such an address shows no button."""

    name = "run_links"
    global_operator_extra_links = (
        XComOperatorLink(name="MLflow run", xcom_key="mlflow_url"),
        XComOperatorLink(name="Report", xcom_key="report_url"),
    )
