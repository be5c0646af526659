"""docs/retraining.md names what there is: settings, options, fields of the form, tags, headings."""

import re

import pytest
from typer.main import get_command

from cifar_tasks.cli.main import app
from cifar_tasks.promotion.evidence import Scored
from cifar_tasks.settings import PROJECT, Settings
from cifar_tasks.steps.payloads import LineVersion, RunRequest
from cifar_tasks.tracking import runs, trained_before

PAGE = (PROJECT / "docs/retraining.md").read_text()
COMMANDS = get_command(app).commands


def test_its_settings_exist() -> None:
    named = set(re.findall(r"CIFAR_[A-Z_]+", PAGE))
    assert named >= {"CIFAR_SCHEDULE", "CIFAR_SOURCE", "CIFAR_START_FROM"}
    assert {name.removeprefix("CIFAR_").lower() for name in named} <= Settings.model_fields.keys()


def test_its_commands_and_their_options_exist() -> None:
    lines = [line.split("#")[0] for line in PAGE.splitlines()]
    calls = re.findall(r"(?:bin/|`)cifar ([a-z]+(?: [a-z]+)?)([^`\n]*)", "\n".join(lines))
    assert {words.split()[0] for words, _ in calls} >= {"run", "backfill", "trace", "rollback", "data"}
    for words, options in calls:
        command = get_command(app)
        for word in words.split():
            command = getattr(command, "commands", {}).get(word, command)
        known = {each for param in command.params for each in param.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known, words


@pytest.mark.parametrize("option", ["--dataset-version", "--force", "--start-from", "--set"])
def test_an_option_that_stands_alone_is_one_of_a_run(option: str) -> None:
    assert option in PAGE
    for name in "run", "demo":
        assert option in {each for param in COMMANDS[name].params for each in param.opts}


def test_fields_of_the_form_have_these_titles() -> None:
    titles = {schema["title"] for schema in RunRequest.form_fields().values()}
    assert set(re.findall(r"[Ff]ield \*([^*]+)\*", PAGE)) == {"Dataset version", "Train again", "Start from"} <= titles


def test_its_tags_are_those_that_are_written() -> None:
    written = {runs.START_FROM, runs.INITIAL_WEIGHTS, runs.DATASET, trained_before.TRAININGS}
    written |= set(LineVersion(line="pets", entry=1).tags())
    assert set(re.findall(r"`(cifar\.[a-z_]+)`", PAGE)) <= written
    assert "initial_weights" in Scored.model_fields


def test_its_links_lead_to_headings() -> None:
    for page, heading in re.findall(r"\]\(([a-z-]+\.md)#([a-z-]+)\)", PAGE):
        text = (PROJECT / "docs" / page).read_text()
        headings = {
            re.sub(r"[^a-z -]", "", each.lower()).replace(" ", "-") for each in re.findall("^#+ (.*)$", text, re.M)
        }
        assert heading in headings, (page, heading)
