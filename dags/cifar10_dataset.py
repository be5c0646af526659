"""Dataset lines: check a source, wait for the delivery, prepare a dataset version, validate it, bring it into use."""

from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import (
    Asset,
    AssetAlias,
    AssetAny,
    AssetOrTimeSchedule,
    CronTriggerTimetable,
    Param,
    PokeReturnValue,
    TriggerRule,
    dag,
    get_current_context,
    task,
)
from airflow.sdk.exceptions import AirflowSkipException

from approval import answer_fields, approval
from cifar_tasks.deployment.dag_ids import DATASET_DAG
from cifar_tasks.steps.line_payloads import LineRequest
from step_tasks import (
    GPU,
    RETRIES,
    SETTINGS,
    form_field,
    form_request,
    line_asset,
    run_task_step,
    show_in_note,
    workflow_run,
)

LINES = SETTINGS.dataset_lines
ACCEPTED = AssetAlias("dataset_lines")
"""Of the assets of all lines: which one has an event is known when a version is in use."""
SOURCES = [Asset(f"dataset_source_{name}", f"cifar://sources/{name}") for name in LINES]
"""An event of one of these, from outside, starts a check."""
SETTLE = max((line.settle_seconds for line in LINES.values()), default=0.0)
ALREADY = 100
"""Events of a line that are looked at, newest first."""

RELEASE = "Release"

ABOUT = """\
Checks the source of a dataset line. If something is new there, waits until the delivery is complete, prepares a dataset
version of it, checks that against the version in use, and brings it into use. Each version that comes into use has one
event of the asset `dataset_line_<line>`, with line, digest and counts.

**Start:** by the schedule of the settings, by an event of the asset `dataset_source_<line>` from outside, or click
▶ Trigger. Without a line each line is checked in a run of its own.

**Nothing new:** the tasks are skipped, and the note of the run has the reason.

**Quarantine:** a version that fails a check is not used. The note of the run has the reasons, the task *validate* a
button to the report with example images. The task *approve* waits for a person (tab *Required Actions*). Without an
answer the version stays quarantined: `cifar data release LINE --reason TEXT`, `cifar data reject LINE --reason TEXT`.

**Way back:** `cifar data rollback LINE --reason TEXT`.

**Event only:** what a person has brought into use on the command line has its event from a run that does nothing else.
"""


def form() -> dict[str, Param]:
    fields = LineRequest.form_fields()
    only = next(iter(LINES)) if len(LINES) == 1 else None
    described = {key: fields["line"][key] for key in ("title", "description")}
    line = Param(only, type=["null", "string"], examples=list(LINES), **described)
    return {"line": line, "event_only": form_field(fields["event_only"], False)}


def schedule() -> Any:
    cron = SETTINGS.dataset_schedule and CronTriggerTimetable(
        SETTINGS.dataset_schedule, timezone=SETTINGS.schedule_timezone
    )
    if not SOURCES:
        return None
    return AssetOrTimeSchedule(timetable=cron, assets=AssetAny(*SOURCES)) if cron else AssetAny(*SOURCES)


def request_of_run() -> dict[str, Any]:
    return form_request(LineRequest, dict(get_current_context()["params"]))


def line_of_run() -> str | None:
    return request_of_run()["line"]


def unchanged(diff: dict[str, Any]) -> str:
    """Why there is no new version. What was delivered and cannot be used is told too."""
    left_out = {"cannot be read": diff["unreadable"], "equal or resemble test images": diff["dropped"]}
    told = [f"; {number} new files {why}" for why, number in left_out.items() if number]
    return f"the images are those of the version in use{''.join(told)}"


def skip(reason: str) -> None:
    show_in_note([reason])
    raise AirflowSkipException(reason)


@dag(
    dag_id=DATASET_DAG,
    dag_display_name="Dataset lines",
    description="Check a source, wait for the delivery, prepare a dataset version, validate it, bring it into use.",
    doc_md=ABOUT,
    schedule=schedule(),
    catchup=False,
    max_active_runs=100,  # a run that waits for a delivery counts, and must not keep other lines waiting
    params=form(),
    default_args=RETRIES,
    tags=["data", "image-classification"],
)
def cifar10_dataset():
    @task.branch(doc_md="Check the line of the form, or send its event only; without a line start a run for each.")
    def branch_on_line() -> str:
        request = request_of_run()
        if not request["line"]:
            return "start_lines"
        return "announce" if request["event_only"] else "check_source"

    start_lines = TriggerDagRunOperator.partial(
        task_id="start_lines",
        trigger_dag_id=DATASET_DAG,
        trigger_run_id="{{ run_id }}__{{ ti.map_index }}",
        skip_when_already_exists=True,  # a retry
        logical_date=None,
        doc_md="Start a run of this DAG for each line.",
    ).expand(conf=[{"line": name} for name in LINES])

    @task(doc_md="List the source and compare the listing with that of the last delivery.")
    def check_source() -> None:
        found = run_task_step("dataset_line:check_source", line=line_of_run(), workflow=workflow_run())
        if found["status"] == "unchanged":
            skip(found["reason"])

    @task.sensor(
        mode="reschedule",
        poke_interval=min(60.0, max(1.0, SETTLE / 5)),
        timeout=timedelta(days=1).total_seconds(),
        doc_md="Wait until the marker was written, or the source has not changed for a while. Holds no worker.",
    )
    def wait_for_delivery() -> PokeReturnValue:
        found = run_task_step("dataset_line:await_delivery", line=line_of_run(), workflow=workflow_run())
        if found["status"] in ("unchanged", "superseded"):
            skip(found["reason"])
        return PokeReturnValue(found["status"] == "complete", found["reason"])

    @task(
        execution_timeout=timedelta(hours=12),
        # The source may have changed again. Before the next try it has to stay unchanged for `settle_seconds`.
        retry_delay=timedelta(seconds=SETTLE + 10),
        max_retry_delay=max(RETRIES["max_retry_delay"], timedelta(seconds=2 * SETTLE)),
        doc_md="Read what is new, and write the dataset version. It is not in use yet.",
    )
    def prepare_version() -> dict[str, Any]:
        prepared = run_task_step("dataset_line:prepare_version", line=line_of_run())
        if not prepared["changed"]:
            skip(unchanged(prepared["diff"]))
        return prepared

    @task(**GPU, doc_md="Check the version against the one in use, with the champion if it was trained on this line.")
    def validate(prepared: dict[str, Any]) -> dict[str, Any]:
        return run_task_step("validate_dataset:validate_dataset", prepared=prepared, workflow=workflow_run())

    @task.branch(doc_md="Continue with accept if the version has passed all checks, else with quarantine.")
    def branch_on_validation(validated: dict[str, Any]) -> str:
        return "accept" if validated["passed"] else "quarantine"

    @task(doc_md="Enter the version into the log of the line as quarantined: the version in use stays.")
    def quarantine(validated: dict[str, Any]) -> dict[str, Any]:
        recorded = run_task_step("validate_dataset:quarantine_version", validated=validated, workflow=workflow_run())
        show_in_note([f"entry {recorded['number']}: {recorded['kind']}", *recorded["reasons"]])
        return recorded

    @task(doc_md="Release or reject the version. Without an answer it stays quarantined.")
    def decide(validated: dict[str, Any], response: Any) -> dict[str, Any]:
        recorded = run_task_step(
            "validate_dataset:record_verdict",
            validated=validated,
            verdict=verdict(response),
            workflow=workflow_run(),
        )
        show_in_note([f"entry {recorded['number']}: {recorded['kind']}"])
        return recorded

    @task(doc_md="Enter the version into the log of the line: it is in use from now on.")
    def accept(prepared: dict[str, Any]) -> dict[str, Any]:
        recorded = run_task_step("dataset_line:accept_version", prepared=prepared, workflow=workflow_run())
        diff = ", ".join(f"{count:,} {what}" for what, count in prepared["diff"].items())
        show_in_note([f"entry {recorded['number']}: {recorded['kind']} ({diff})", *recorded["reasons"]])
        return recorded

    @task(
        trigger_rule=TriggerRule.NONE_FAILED,  # a run that found nothing new may find a version without an event
        inlets=[line_asset(name) for name in LINES],
        outlets=[ACCEPTED],
        max_active_tis_per_dag=1,  # of two runs the second one sees the event of the first
        doc_md="The event of the asset of the line, if the version in use has none yet.",
    )
    def announce(*, inlet_events: Any = None, outlet_events: Any = None) -> None:
        line = line_of_run()
        entry = line and run_task_step("dataset_line:version_in_use", line=line)
        if not entry:
            raise AirflowSkipException("there is no version to announce")
        asset = line_asset(line)
        extra = {"line": line, "entry": entry["number"]}
        extra |= {key: entry["dataset"][key] for key in ("digest", "uri", "counts")}
        for event in inlet_events[asset].ascending(False).limit(ALREADY):
            if all(event.extra.get(key) == extra[key] for key in ("entry", "digest")):  # a new log counts from 1 again
                raise AirflowSkipException(f"entry {entry['number']} of {line} is announced already")
        outlet_events[ACCEPTED].add(asset, extra=extra)

    check = check_source()
    prepared = prepare_version()
    announced = announce()
    branch_on_line() >> [check, start_lines, announced]
    check >> wait_for_delivery() >> prepared
    validated = validate(prepared)
    approve = approval(
        RELEASE,
        task_id="approve",
        subject="Use the quarantined version of {{ params.line }}?",
        body="{{ ti.xcom_pull('validate')['markdown'] }}",
        doc_md="Wait for a person, who sees the checks on the tab *Required Actions*.",
    )
    accepted, quarantined = accept(prepared), quarantine(validated)
    decided = decide(validated, approve.output)
    branch_on_validation(validated) >> [accepted, quarantined]
    quarantined >> approve
    [accepted, decided] >> announced


def verdict(response: Any) -> dict[str, Any]:
    """What a person answered to the task `approve`; nobody did if `by` is none."""
    return {"release": response["chosen_options"] == [RELEASE], **answer_fields(response)}


cifar10_dataset()
