"""`cifar backfill` on the real stack: a run for each past dataset version of a line, with its own parameters."""

import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from airflow_client.client.api.dag_run_api import DagRunApi
from typer.testing import CliRunner

from cifar_tasks.cli.dag_run import DagRun
from cifar_tasks.cli.main import app
from cifar_tasks.data.lines.line_log import Delivery, LineDataset, LineOutcome, append_entry
from cifar_tasks.data.preparation import prepare
from cifar_tasks.data.source import open_source
from cifar_tasks.data.versions import DatasetVersion
from cifar_tasks.deployment.dag_ids import TRAINING_DAG
from cifar_tasks.settings import Settings
from cifar_tasks.storage.s3 import S3Store
from cifar_tasks.tracking import model_registry, runs
from tests.conftest import COLOURS, RunningStack, picture
from tests.waiting import wait_for_end, wait_for_success

if TYPE_CHECKING:
    from airflow_client.client import ApiClient

LINE, MODEL = "past", "backfilled"
WORDS = ["backfill", LINE, "--models", "cnn", "--registered-model", MODEL, "--set", "epochs=1", "--set", "seed=7"]


def version_of(archive: Path, store: S3Store, kind: str) -> DatasetVersion:
    """A dataset version of the line, `accepted` or `quarantined`."""
    version = prepare(open_source(str(archive), Settings(), print), store, 0, print)
    dataset = LineDataset(digest=version.digest, uri=version.uri, counts=version.counts, index="", index_sha256="")
    outcome = LineOutcome(kind=kind, dataset=dataset, delivery=Delivery(objects=1, listing=""))
    append_entry(store, LINE, lambda _: outcome)
    return version


def test_a_backfill_trains_on_each_version_that_was_in_use_with_its_own_parameters(
    connected: RunningStack, airflow: "ApiClient", pictures: Path, tmp_path: Path
) -> None:
    store, random, used = S3Store(Settings().bucket), np.random.default_rng(3), list[DatasetVersion]()
    archive = Path(shutil.copy(pictures, tmp_path / "past.zip"))
    for number, kind in enumerate(("accepted", "quarantined", "accepted")):
        version = version_of(archive, store, kind)
        used += [version] if kind == "accepted" else []
        with zipfile.ZipFile(archive, "a") as more:
            more.writestr(f"train/red/more-{number}.png", picture(COLOURS["red"], random))

    for words, message in (
        (["--from", "2", "--to", "2"], "from 2 to 2 brought a version into use. Those that did: 1, 3"),
        (["--from", "4"], "from 4 to the last one brought a version into use. Those that did: 1, 3"),
    ):
        assert message in str(CliRunner().invoke(app, [*WORDS, *words]).exception)
    unknown = CliRunner().invoke(app, ["backfill", "FOO"])
    assert f"no version of a dataset line 'FOO' yet. Lines with versions: {LINE}" in str(unknown.exception)

    started = backfill(airflow)
    for run in started:
        wait_for_success(run, 400)
    conf = [DagRunApi(airflow).get_dag_run(TRAINING_DAG, run.run_id).conf for run in started]
    assert [each["dataset_version"] for each in conf] == [version.digest[:16] for version in used]
    wanted = {"source": f"line:{LINE}", "models": ["cnn"], "epochs": 1, "seed": 7, "promotion": "never"}
    assert all({name: each[name] for name in wanted} == wanted for each in conf)

    client = runs.mlflow_client()
    made = sorted(client.search_model_versions(f"name = '{MODEL}'"), key=lambda found: int(found.version))
    assert [found.tags["cifar.dataset"] for found in made] == [version.digest for version in used]
    assert [found.tags["cifar.line_entry"] for found in made] == ["1", "3"]
    assert model_registry.version_with_alias(client, MODEL, "champion") is None

    for run in backfill(airflow):
        wait_for_end(run, 200)
        assert run.is_skipped()


def backfill(airflow: "ApiClient") -> list[DagRun]:
    """Start it; the runs in the order of the versions."""
    before = {run.dag_run_id for run in DagRunApi(airflow).get_dag_runs(TRAINING_DAG, limit=100).dag_runs}
    done = CliRunner().invoke(app, WORDS)
    assert done.exit_code == 0, done.output
    after = DagRunApi(airflow).get_dag_runs(TRAINING_DAG, limit=100, order_by=["run_after"]).dag_runs
    started = [DagRun(airflow, str(run.dag_run_id)) for run in after if run.dag_run_id not in before]
    assert len(started) == 2
    assert all(run.url in done.output for run in started)
    return started
