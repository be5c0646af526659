"""Whom the S3 client asks, whatever the user's own AWS files and variables say."""

import os
from pathlib import Path

import pytest

from cifar_tasks.deployment.stack.environment import create_secrets, environment, overlay
from cifar_tasks.errors import ConfigError
from cifar_tasks.storage.s3 import s3_client

LOCAL = {"AWS_ENDPOINT_URL_S3": "http://127.0.0.1:8333", "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
CONFIG = (
    "[default]\nignore_configured_endpoint_urls = true\nca_bundle = /nowhere\ns3 =\n    addressing_style = virtual\n"
)


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with files of the AWS command line that lead to AWS."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(CONFIG)
    (tmp_path / ".aws" / "credentials").write_text("[default]\naws_access_key_id = AKIA\naws_secret_access_key = x\n")
    monkeypatch.setattr(os, "environ", {"HOME": str(tmp_path)})
    return tmp_path


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_the_named_server_is_asked_although_the_user_s_file_ignores_it(own_files: Path, variable: str) -> None:
    os.environ |= {variable: "http://s3.example.com", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"}
    assert s3_client().meta.endpoint_url == "http://s3.example.com"


def test_a_given_environment_is_all_that_counts(own_files: Path) -> None:
    os.environ |= {"AWS_PROFILE": "nobody", "AWS_CONFIG_FILE": "/nowhere", "AWS_ENDPOINT_URL": "http://other"}
    client = s3_client(environment=LOCAL)
    assert client.meta.endpoint_url == "http://127.0.0.1:8333"
    assert client._request_signer._credentials.access_key == "me"
    assert (client.meta.config.s3 or {}).get("addressing_style") != "virtual"


def test_a_client_of_the_stack_reads_no_file_of_the_user_s(own_files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    create_secrets(own_files)
    shell = {**os.environ, "AWS_PROFILE": "nobody", "AWS_CA_BUNDLE": "/nowhere", "AWS_ENDPOINT_URL": "http://other"}
    monkeypatch.setattr(os, "environ", overlay(shell, environment(own_files)))
    client = s3_client()
    assert client.meta.endpoint_url == "http://127.0.0.1:8333"
    assert client._request_signer._credentials.access_key == "cifar"
    assert (client.meta.config.s3 or {}).get("addressing_style") != "virtual"


def test_a_profile_that_does_not_exist_is_an_error_of_ours(own_files: Path) -> None:
    os.environ["AWS_PROFILE"] = "nobody"
    with pytest.raises(ConfigError, match="nobody"):
        s3_client()
