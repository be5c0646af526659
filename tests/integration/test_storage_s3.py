"""The S3 store on a real server: it keeps the contract, and the server refuses anonymous access."""

import uuid

import pytest
import requests
from botocore.exceptions import ClientError

from cifar_tasks.deployment import SEAWEED_VOLUMES
from cifar_tasks.deployment.stack.environment import HOST, started_with
from cifar_tasks.errors import IntegrityError, StorageRefused
from cifar_tasks.storage.s3 import S3Store, s3_client
from tests.conftest import RunningStack
from tests.unit.storage.test_storage import ObjectStoreContract


class TestS3Store(ObjectStoreContract):
    @pytest.fixture
    def store(self, s3_store: S3Store) -> S3Store:
        return s3_store


def test_an_object_larger_than_a_chunk_of_the_server_comes_back_whole(s3_store: S3Store) -> None:
    data = bytes(range(256)) * (9 * 4096)
    ref = s3_store.put("large", data)
    assert s3_store.get("large", ref.sha256) == data


def test_an_anonymous_reader_is_refused(s3_store: S3Store, tracked: RunningStack) -> None:
    s3_store.put("a", b"private")
    anonymous = s3_client(unsigned=True)
    assert anonymous.meta.endpoint_url == tracked.s3_url
    with pytest.raises(ClientError, match="AccessDenied"):
        anonymous.get_object(Bucket=s3_store.bucket, Key="a")


def test_a_wrong_signature_is_refused(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    s3_store.put("a", b"private")
    assert S3Store(s3_store.bucket).get("a") == b"private"  # the same server with the right key
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "guessed")
    with pytest.raises(StorageRefused, match=r"SignatureDoesNotMatch\. Correct AWS_SECRET_ACCESS_KEY"):
        S3Store(s3_store.bucket).get("a")


def test_an_unknown_key_is_refused_for_good(s3_store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    for call in (lambda store: store.get("a"), lambda store: store.exists("a"), lambda store: store.put("a", b"1")):
        with pytest.raises(StorageRefused) as caught:
            call(S3Store(s3_store.bucket))
        assert not caught.value.retryable


def test_a_missing_bucket_is_no_missing_object(tracked: RunningStack) -> None:
    store = S3Store(f"missing-{uuid.uuid4().hex[:8]}")
    for read in (lambda: store.get("a"), lambda: store.snapshot("a")):
        with pytest.raises(StorageRefused, match=r"NoSuchBucket\. There is no such bucket"):
            read()


def test_an_object_that_was_altered_under_its_own_metadata_is_refused(s3_store: S3Store) -> None:
    ref = s3_store.put("a", b"one")
    s3_client().put_object(Bucket=s3_store.bucket, Key="a", Body=b"two", Metadata={"sha256": ref.sha256})
    with pytest.raises(IntegrityError, match="damaged"):
        s3_store.get("a")


def test_new_buckets_take_objects_however_full_the_disk_is(backend: RunningStack) -> None:
    master = started_with(backend.home).s3_inner_port + 3
    topology = requests.get(f"http://{HOST}:{master}/dir/status", timeout=5).json()["Topology"]
    assert topology["Max"] == SEAWEED_VOLUMES
