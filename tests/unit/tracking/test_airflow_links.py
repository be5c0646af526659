"""Links from MLflow to Airflow."""

import pytest

from cifar_tasks.tracking import airflow_links, runs


@pytest.fixture
def experiment(mlflow_client, tmp_path) -> str:
    return mlflow_client.create_experiment(str(tmp_path))


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> str:
    """Below a path, and with a slash at the end, as people write it."""
    monkeypatch.setenv("CIFAR_AIRFLOW_URL", "https://example.org/airflow/")
    return "https://example.org/airflow"


def test_a_page_is_named_by_its_state_with_any_names(airflow: str) -> None:
    page = airflow_links.page_of_workflow("dag/manual__2026-01-01T00:00:00+00:00", "a&b (c)")
    assert page == (
        f"{airflow}/plugin/models?registered_model=a%26b+%28c%29&dag_id=dag&run_id=manual__2026-01-01T00%3A00%3A00%2B00%3A00"
    )
    assert airflow_links.page_of_version("mine", 3) == (
        f"{airflow}/plugin/models?registered_model=mine&view=compare&a=3"
    )


def test_a_run_gets_tags_and_a_description_once(airflow: str, mlflow_client, experiment) -> None:
    run = mlflow_client.create_run(experiment)
    url = f"{airflow}/dags/dag/runs/one"
    airflow_links.link_run(mlflow_client, run, "dag/one", url, "mine")
    tags = mlflow_client.get_run(run.info.run_id).data.tags
    page = airflow_links.page_of_workflow("dag/one", "mine")
    assert (tags[airflow_links.DAG_RUN], tags[airflow_links.MODELS_PAGE]) == (url, page)
    assert tags[runs.NOTE] == f"[Airflow run]({url}) · [Models of this run]({page})"
    runs.log_tags(mlflow_client, run.info.run_id, {runs.NOTE: "of a person"})
    airflow_links.link_run(mlflow_client, mlflow_client.get_run(run.info.run_id), "dag/one", url, "mine")
    assert mlflow_client.get_run(run.info.run_id).data.tags[runs.NOTE] == "of a person"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "https://airflow/dags/d/runs/a%20b?x=1&y=[2]#top",
            "[Delivery](https://airflow/dags/d/runs/a%20b?x=1&y=[2]#top)",
        ),
        ("http://airflow/a) [b](http://c <d>", "[Delivery](http://airflow/a%29%20[b]%28http://c%20%3Cd%3E)"),
        ("s3://labels/products", "Delivery: s3://labels/products"),
        ("javascript:alert(1)", "Delivery: javascript:alert(1)"),
        ("[a](http://b)", "Delivery: &#91;a&#93;(http://b)"),
        ("", ""),
        (None, ""),
    ],
)
def test_only_web_addresses_become_links(url: str | None, shown: str) -> None:
    assert airflow_links.markdown_links({"Delivery": url}) == shown


def test_without_airflow_a_run_gets_no_link(mlflow_client, experiment) -> None:
    run = mlflow_client.create_run(experiment)
    airflow_links.link_run(mlflow_client, run, "cli/one", None, "mine")
    tags = mlflow_client.get_run(run.info.run_id).data.tags
    assert tags.keys().isdisjoint({airflow_links.DAG_RUN, airflow_links.MODELS_PAGE, runs.NOTE})
