"""What S3 refuses for good is told from S3 that is away; local servers answer in place of S3."""

import pytest

from cifar_tasks.errors import ConfigError, StorageError, StorageRefused
from cifar_tasks.storage.s3 import S3Store, s3_client
from tests.answers import server_that_answers

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
CALLS = {
    "get": lambda store: store.get("a"),
    "put": lambda store: store.put("a", b"1"),
    "put_if": lambda store: store.put_if("a", b"1", None),
    "snapshot": lambda store: store.snapshot("a"),
    "keys": lambda store: list(store.keys("a")),
    "delete": lambda store: store.delete("a"),
}


def store_at(address: str, bucket: str = "bucket", **variables: str) -> S3Store:
    return S3Store(bucket, s3_client(1, 5, {"AWS_ENDPOINT_URL_S3": address, **KEYS, **variables}))


def said(code: str) -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'


@pytest.mark.parametrize(
    ("status", "code", "call"),
    [
        (404, "NoSuchBucket", "get"),
        (403, "InvalidAccessKeyId", "get"),
        (403, "SignatureDoesNotMatch", "keys"),
        (403, "RequestTimeTooSkewed", "put"),
        (400, "ExpiredToken", "get"),
        (501, "NotImplemented", "put_if"),
        *((403, "AccessDenied", call) for call in CALLS),
    ],
)
def test_a_refusal_is_permanent_and_one_line_with_its_code(status: int, code: str, call: str) -> None:
    with (
        server_that_answers(status, said(code), "application/xml") as address,
        pytest.raises(StorageRefused, match=rf"refused s3://bucket/a: {code}\. \w+") as caught,
    ):
        CALLS[call](store_at(address))
    assert not caught.value.retryable
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("status", "code", "call"),
    [
        (500, "InternalError", "get"),
        (400, "RequestTimeout", "put"),
        (409, "OperationAborted", "put_if"),
        (429, "TooManyRequests", "keys"),
        *((503, "SlowDown", call) for call in CALLS),
    ],
)
def test_a_server_that_is_busy_is_worth_a_retry(status: int, code: str, call: str) -> None:
    with server_that_answers(status, said(code), "application/xml") as address, pytest.raises(StorageError) as caught:
        CALLS[call](store_at(address))
    assert caught.value.retryable


@pytest.mark.parametrize(
    ("status", "call"),
    [(200, "keys"), *((status, call) for status in (401, 403, 404) for call in ("get", "put", "keys"))],
)
def test_a_page_of_a_proxy_is_neither_a_missing_object_nor_an_empty_listing(status: int, call: str) -> None:
    with server_that_answers(status) as address, pytest.raises(StorageRefused):
        CALLS[call](store_at(address))


def test_a_proxy_whose_server_is_away_is_worth_a_retry() -> None:
    with server_that_answers(502) as address, pytest.raises(StorageError) as caught:
        store_at(address).get("a")
    assert caught.value.retryable


def test_an_address_without_a_server_is_worth_a_retry() -> None:
    with pytest.raises(StorageError, match="did not answer") as caught:
        store_at("http://127.0.0.1:9").get("a")
    assert caught.value.retryable


def test_a_log_in_in_the_address_is_not_shown() -> None:
    with pytest.raises(StorageError, match=r'"http://127\.0\.0\.1:9/') as caught:
        store_at("http://user:hidden-word@127.0.0.1:9").get("a")
    assert "hidden-word" not in str(caught.value)


def test_an_unknown_host_name_is_worth_a_retry_because_without_a_network_no_name_is_known() -> None:
    with pytest.raises(StorageError, match="no host has the name in AWS_ENDPOINT_URL_S3") as caught:
        store_at("http://no-such-host.invalid:9000").get("a")
    assert caught.value.retryable


def test_https_where_http_is_spoken_is_permanent() -> None:
    with server_that_answers(200) as address, pytest.raises(StorageRefused, match="SSL"):
        store_at(address.replace("http:", "https:")).get("a")


def test_a_name_that_no_bucket_can_have_is_permanent_and_one_line() -> None:
    with pytest.raises(StorageRefused, match="Invalid bucket name") as caught:
        store_at("http://127.0.0.1:9", bucket="no bucket").get("a")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("address", ["127.0.0.1:9000", "not a url"])
def test_an_address_that_is_no_url_is_a_configuration_error(address: str) -> None:
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL_S3"):
        store_at(address)


def test_a_log_in_in_an_address_that_is_no_url_is_not_shown() -> None:
    with pytest.raises(ConfigError, match="AWS_ENDPOINT_URL_S3") as caught:
        store_at("http://user:hidden-word@my_host..:9000")
    assert "hidden-word" not in str(caught.value)


def test_no_keys_and_an_unknown_profile_are_permanent(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(StorageRefused, match="Unable to locate credentials"):
        S3Store("bucket").get("a")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(ConfigError, match="nobody"):
        S3Store("bucket")


def test_a_listing_that_is_cut_short_is_an_error_and_no_shorter_listing() -> None:
    """boto3 takes a page that says it is not the last, but not where the next one is, for the last one."""
    page = (
        '<?xml version="1.0"?><ListBucketResult><Name>bucket</Name><IsTruncated>true</IsTruncated><Contents>'
        "<Key>a/1</Key><Size>1</Size><ETag>x</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
        "</Contents></ListBucketResult>"
    )
    with server_that_answers(200, page, "application/xml") as address:
        listing = store_at(address).entries("a")
        assert next(listing).modified == 1767225600
        with pytest.raises(StorageError, match="ends in the middle") as caught:
            next(listing)
    assert caught.value.retryable
