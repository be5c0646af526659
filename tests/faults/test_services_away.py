"""MLflow or S3 goes away while a model is evaluated, registered, reported or promoted: the retry mends all of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from botocore.httpsession import URLLib3Session
from mlflow import MlflowClient

from cifar_tasks.errors import CifarError
from cifar_tasks.promotion.limits import Limits
from cifar_tasks.steps.evaluate import evaluate_model
from cifar_tasks.steps.payloads import EvaluatedModel, RegisteredModel, TrainedModel
from cifar_tasks.steps.promote import propose, record
from cifar_tasks.steps.promotion_payloads import Promotion, PromotionRequest
from cifar_tasks.steps.report import report
from cifar_tasks.steps.report_payloads import RunReport
from cifar_tasks.steps.train import train_model
from cifar_tasks.storage import s3
from tests.conftest import RunningStack, connect
from tests.faults.test_deleted_by_hand import registered_as
from tests.trainings import prepared, train_plan, workflow

NOBODY = "http://127.0.0.1:9"
MOMENTS = 5
"""At which a service goes away, from the first request of a step to its last."""


@pytest.fixture(scope="module")
def trained(backend: RunningStack, pictures: Path) -> TrainedModel:
    with pytest.MonkeyPatch.context() as patch:
        connect(patch, backend.environment)
        return train_model(train_plan(prepared(pictures, "services-away"), epochs=1))


@pytest.fixture
def evaluated(trained: TrainedModel, tracked: RunningStack) -> EvaluatedModel:
    return evaluate_model(trained)


@contextmanager
def away(server: str, after: int | None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Requests beyond the first `after` to this server find nobody; yields the addresses of all."""
    asked: list[str] = []
    url = urlsplit(server)

    def lead_nowhere(send: Callable[..., Any], session: Any, request: Any, *words: Any, **options: Any) -> Any:
        if urlsplit(request.url).netloc == url.netloc:
            asked.append(request.url)
            if after is not None and len(asked) > after:
                request.url = NOBODY + urlsplit(request.url).path
        return send(session, request, *words, **options)

    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        patch.setattr(s3, "s3_client", partial(s3.s3_client, attempts=1))
        for session in (requests.Session, URLLib3Session):
            send = session.send
            patch.setattr(session, "send", lambda *w, send=send, **o: lead_nowhere(send, *w, **o))
        yield asked


@pytest.fixture
def interrupted(
    request: pytest.FixtureRequest, tracked: RunningStack, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Any]]:
    """Calls a step with an argument of `make(number)`, once undisturbed, then with the service away at some moments,
    each time followed by a retry; returns the arguments with the results."""
    name = getattr(request, "param", "mlflow")
    server = tracked.mlflow_url if name == "mlflow" else tracked.s3_url

    def call(step: Callable[[Any], Any], make: Callable[[str], Any]) -> list[tuple[Any, Any]]:
        argument = make(f"{name}-undisturbed")
        results = [(argument, step(argument))]
        argument = make(f"{name}-counted")  # what is imported and cached is asked for no more
        with away(server, None, monkeypatch) as asked:
            results.append((argument, step(argument)))
        assert asked
        for done in sorted({len(asked) * moment // MOMENTS for moment in range(MOMENTS)} | {len(asked) - 1}):
            argument = make(f"{name}-{done}")
            with away(server, done, monkeypatch), pytest.raises(CifarError) as lost:
                step(argument)
            assert lost.value.retryable, asked[done]
            assert len(str(lost.value)) < 500, asked[done]
            results.append((argument, step(argument)))
        return results

    return call


def test_an_evaluation_is_repeated(interrupted, client: MlflowClient, trained: TrainedModel) -> None:
    def apart(number: str) -> TrainedModel:
        """With a result of its own."""
        return trained.model_copy(update={"prefix": f"{trained.prefix}/{number}"})

    results = interrupted(evaluate_model, apart)
    assert len({(result.test_accuracy, result.test_loss) for _, result in results}) == 1
    run = client.get_run(trained.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test_accuracy"] == results[0][1].test_accuracy


@pytest.mark.parametrize("interrupted", ["mlflow", "s3"], indirect=True)
def test_a_registration_makes_one_version_with_all_its_tags(
    interrupted, client: MlflowClient, evaluated: EvaluatedModel
) -> None:
    def step(argument: tuple[EvaluatedModel, str]) -> RegisteredModel:
        return registered_as(*argument)

    tags = []
    for (_, name), result in interrupted(step, lambda number: (evaluated, f"away-registered-{number}")):
        (version,) = client.search_model_versions(f"name = '{name}'")
        assert int(version.version) == result.version == 1
        assert "Test accuracy" in version.description
        tags.append({key: value.replace(name, "NAME") for key, value in version.tags.items()})  # in addresses
    assert len(tags) > 1
    assert all(found == tags[0] for found in tags)


def test_a_promotion_has_one_entry_and_its_alias(interrupted, client: MlflowClient, evaluated: EvaluatedModel) -> None:
    def first(number: str) -> RegisteredModel:
        return registered_as(evaluated, f"away-promoted-{number}")

    def step(registered: RegisteredModel) -> Promotion:
        asked = PromotionRequest(registered_model=registered.name, version=registered.version, limits=Limits())
        return record(propose(asked, workflow(registered.name)), None)

    for candidate, promotion in interrupted(step, first):
        assert (promotion.number, promotion.champion) == (1, candidate.version)
        assert client.get_registered_model(candidate.name).aliases == {"champion": str(candidate.version)}


@pytest.mark.parametrize("interrupted", ["mlflow", "s3"], indirect=True)
def test_a_report_is_written_and_ends_the_run(
    interrupted, client: MlflowClient, evaluated: EvaluatedModel, tmp_path: Path
) -> None:
    registered = registered_as(evaluated, "away-reported")
    parent = evaluated.trained.plan.data.parent_run_id

    def step(models: list[RegisteredModel]) -> RunReport:
        return report(models, [evaluated.trained.plan])

    results = interrupted(step, lambda number: [registered])
    assert len(results) > 2
    assert all(result == results[0][1] for _, result in results)
    assert client.get_run(parent).info.status == "FINISHED"
    assert "<img" in Path(client.download_artifacts(parent, "report.html", str(tmp_path))).read_text()
