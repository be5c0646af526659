"""Who gives a command."""

import getpass
import os

import pytest

from cifar_tasks.cli.terminal import person


def test_a_person_has_a_name():
    assert person() == getpass.getuser()


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 12345"), OSError("No username set")])
def test_a_person_whom_the_machine_does_not_know_is_a_number(monkeypatch, error):
    def unknown() -> str:
        raise error

    monkeypatch.setattr(getpass, "getuser", unknown)
    assert person() == f"uid {os.getuid()}"
