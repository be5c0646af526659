"""Object storage: content in, a reference with its SHA-256 out; every read verifies the digest."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_tasks.errors import ConfigError, IntegrityError, StorageError, StorageRefused
from cifar_tasks.storage.hosts import is_unknown_host, without_login, worth_a_retry

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from botocore.session import Session
    from mypy_boto3_s3 import S3Client


REMEDIES = {
    "NoSuchBucket": "There is no such bucket: create it, or correct its name.",
    "InvalidAccessKeyId": "Correct AWS_ACCESS_KEY_ID: the server does not know this key.",
    "SignatureDoesNotMatch": "Correct AWS_SECRET_ACCESS_KEY.",
    "AccessDenied": "Give this key access to the bucket, or use another one.",
    "RequestTimeTooSkewed": "Set the clocks of both machines (NTP).",
    "ExpiredToken": "Renew the credentials: AWS_SESSION_TOKEN has expired.",
    "NotImplemented": "Use a server with conditional writes (SeaweedFS 4.48, AWS, MinIO, Ceph).",
}
"""What to do about the code of a refusal."""


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that digests are taken of: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class ObjectRef:
    """An object as a manifest names it."""

    key: str
    sha256: str
    size: int
    """Bytes."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class ObjectEntry:
    """An object as a listing shows it, without its content."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """The server's own mark of the content: another one means other content."""
    modified: float = 0.0
    """When it was written, by the server's clock: Unix time in whole seconds."""


@dataclass(frozen=True)
class Snapshot:
    """An object as it was at one moment."""

    data: bytes
    etag: str
    """See `ObjectEntry`."""
    age: float
    """Seconds since it was written. Both times are the server's: no clock of a client's takes part. S3 tells whole
    seconds, so that the age may be wrong by less than one."""


def verified(key: str, data: bytes, sha256: str | None) -> bytes:
    """`data`, if it has the digest it was written with."""
    if sha256 is not None and sha256_hex(data) != sha256:
        raise IntegrityError(
            f"{key} is damaged: SHA-256 {sha256_hex(data)[:12]}… instead of {sha256[:12]}…. "
            "Delete the object and run the step that wrote it again."
        )
    return data


def split_s3_url(url: str) -> tuple[str, str]:
    """`s3://bucket/some/key` → (`bucket`, `some/key`). The key is taken literally: `#`, `?` and `%20` belong to it."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not url.startswith("s3://") or not bucket:
        raise ConfigError(f"{url!r} is no S3 URL: write s3://BUCKET/KEY")
    return bucket, key


class S3Store:
    """A bucket behind any S3 API. Endpoint and credentials come from the variables that boto3 reads itself.

    Keys are plain paths without a leading slash.
    """

    def __init__(self, bucket: str, client: "S3Client | None" = None) -> None:
        self.bucket = bucket
        self._client = client or s3_client()

    def uri(self, key: str) -> str:
        """The key as a URL that the user can hand to another tool."""
        return f"s3://{self.bucket}/{key}"

    def put(self, key: str, data: bytes) -> ObjectRef:
        """Write or replace an object."""
        digest = sha256_hex(data)
        with _storage_errors(self.uri(key)):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=data, Metadata={"sha256": digest})
        return ObjectRef(key, digest, len(data))

    def put_if(self, key: str, data: bytes, etag: str | None) -> str:
        """Replace an object whose mark is still `etag`, or with none write one where there is none; the new mark.

        Of several that try at once one succeeds. The same content there already is success. Raises `IntegrityError`
        when other content lies there, `KeyError` if there is none any more.
        """
        from botocore.exceptions import ClientError

        digest = sha256_hex(data)
        put = partial(self._client.put_object, Bucket=self.bucket, Key=key, Body=data, Metadata={"sha256": digest})
        try:
            with _storage_errors(self.uri(key)):
                return (put(IfNoneMatch="*") if etag is None else put(IfMatch=etag))["ETag"]
        except StorageError as error:
            cause = error.__cause__
            if not isinstance(cause, ClientError) or _code(cause) not in ("PreconditionFailed", "412"):
                raise
        # Refused, perhaps because of an earlier attempt of boto3's own whose answer was lost.
        found = self.snapshot(key)
        verified(self.uri(key), found.data, digest)
        return found.etag

    def snapshot(self, key: str) -> Snapshot:
        """Content, mark and age, which belong together; `KeyError` if there is none."""
        with _storage_errors(self.uri(key)):
            found = self._client.get_object(Bucket=self.bucket, Key=key)
            data = found["Body"].read()
        now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
        return Snapshot(data, found["ETag"], (now - found["LastModified"]).total_seconds())

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Read an object; `KeyError` if there is none, `IntegrityError` if its digest is not `sha256`.

        Without `sha256` it is compared with the digest that this product keeps in the object's metadata.
        """
        with _storage_errors(self.uri(key)):
            found = self._client.get_object(Bucket=self.bucket, Key=key)
            data = found["Body"].read()
        return verified(self.uri(key), data, sha256 or found.get("Metadata", {}).get("sha256"))

    def download(self, key: str, path: Path) -> None:
        """Write an object to a file without holding it in memory; `KeyError` if there is none."""
        with _storage_errors(self.uri(key)), path.open("wb") as file:
            for chunk in self._client.get_object(Bucket=self.bucket, Key=key)["Body"].iter_chunks(2**20):
                file.write(chunk)

    def exists(self, key: str) -> bool:
        try:
            with _storage_errors(self.uri(key)):
                self._client.head_object(Bucket=self.bucket, Key=key)
        except KeyError:
            return False
        return True

    def entries(self, prefix: str) -> Iterator[ObjectEntry]:
        """All objects whose key begins with `prefix`, in order of their keys."""
        with _storage_errors(self.uri(prefix)):
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                if "Name" not in page:  # boto3 reads a page of a proxy as an empty listing
                    raise StorageRefused(f"{self.uri(prefix)} has no listing of S3. Correct AWS_ENDPOINT_URL_S3.")
                for found in page.get("Contents", []):
                    yield ObjectEntry(found["Key"], found["Size"], found["ETag"], found["LastModified"].timestamp())
                if page.get("IsTruncated") and not page.get("NextContinuationToken"):  # boto3 would end here, silently
                    raise StorageError(f"the listing of {self.uri(prefix)} ends in the middle. Try again.")

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def delete(self, key: str) -> None:
        with _storage_errors(self.uri(key)):
            self._client.delete_object(Bucket=self.bucket, Key=key)


def s3_client(
    attempts: int = 10,
    read_timeout: float = 60,
    environment: Mapping[str, str] | None = None,
    unsigned: bool = False,
) -> "S3Client":
    """A client that waits for a server that restarts, and gives up on one that is gone.

    Between ten attempts it waits up to 26 s: boto3 waits 0.05 s · 2ⁿ, at random less. `read_timeout` is in seconds,
    of one attempt. With an `environment` it uses the address and the credentials in there, and no proxy. `unsigned` is
    anonymous access. Raises `ConfigError` if the address or boto3's own configuration cannot be used.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=min(5, read_timeout),
        read_timeout=read_timeout,
        signature_version=UNSIGNED if unsigned else None,
        proxies=None if environment is None else {},
    )
    own = environment or {}
    address = own if environment is not None else os.environ
    try:
        # boto3's own default session would keep the first credentials that it saw. With an `environment` it reads none
        # of the user's files.
        session = boto3.session.Session(botocore_session=_session(with_files=environment is None))
        return session.client(
            "s3",
            # Given by hand, because ~/.aws/config can make boto3 ignore the variables and talk to AWS.
            endpoint_url=address.get("AWS_ENDPOINT_URL_S3") or address.get("AWS_ENDPOINT_URL") or None,
            aws_access_key_id=own.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=own.get("AWS_SECRET_ACCESS_KEY"),
            # SeaweedFS and MinIO ignore the region, but a signature needs one; AWS users set AWS_DEFAULT_REGION.
            region_name=own.get("AWS_DEFAULT_REGION") or session.region_name or "us-east-1",
            config=config,
        )
    except (BotoCoreError, ValueError) as error:
        reason = without_login(str(error))
        raise ConfigError(f"S3 cannot be used: {reason}. Correct AWS_ENDPOINT_URL_S3 or ~/.aws/config.") from error


def _session(with_files: bool) -> "Session":
    from botocore.session import Session

    # Name → its key in a file, its variables, its value, a conversion.
    values = {"profile": None, "config_file": os.devnull, "credentials_file": os.devnull, "ca_bundle": None}
    without_files = {name: (None, None, value, None) for name, value in values.items()}
    session = Session(session_vars=None if with_files else without_files)
    session.register_component("data_loader", _definitions())
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_timestamp)
    return session


def _timestamp(value: Any) -> datetime:
    """Of RFC 3339, as in a listing, without boto3's own parser, which takes more than half of the time of a listing."""
    from botocore.utils import parse_timestamp

    with suppress(TypeError, ValueError):
        if (time := datetime.fromisoformat(value)).tzinfo:
            return time
    parsed: datetime = parse_timestamp(value)
    return parsed


@cache
def _definitions() -> "Loader":
    """boto3's definitions of services. Reading them is 50 of the 60 ms that a client takes: once a process."""
    from botocore.loaders import create_loader

    return create_loader()


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def _storage_errors(uri: str) -> Iterator[None]:
    """Turns what boto3 raises into what this product's callers expect."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    try:
        yield
    except ClientError as error:
        code = _code(error)
        # The answer to HEAD has no body, so no code: the key or the bucket is missing.
        if code == "NoSuchKey" or (error.operation_name == "HeadObject" and _status(error) == HTTPStatus.NOT_FOUND):
            raise KeyError(uri) from error
        # AWS answers an upload that was too slow with status 400.
        if worth_a_retry(_status(error)) or code == "RequestTimeout":
            raise StorageError(f"storage failed at {uri}: {code}. Is it running (`cifar status`)?") from error
        remedy = REMEDIES.get(code, "Check bucket, keys and AWS_ENDPOINT_URL_S3.")
        raise StorageRefused(f"storage refused {uri}: {code}. {remedy}") from error
    except (BotoCoreError, ResponseParserError) as error:
        reason = without_login(" ".join(str(error).split()))[:200]
        if is_unknown_host(getattr(error, "kwargs", {}).get("error")):
            # Worth a retry: in a container whose network is away no name is known.
            raise StorageError(f"no host has the name in AWS_ENDPOINT_URL_S3. Is it right? ({reason})") from error
        if _is_permanent(error):
            remedy = "Check bucket, keys and AWS_ENDPOINT_URL_S3."
            raise StorageRefused(f"storage cannot be used for {uri}: {reason}. {remedy}") from error
        raise StorageError(f"storage did not answer for {uri}: {reason}. Is it running (`cifar status`)?") from error


def _is_permanent(error: Exception) -> bool:
    """Whether the request can never succeed: no keys, a name that no bucket can have, a server that is not S3."""
    from botocore import exceptions
    from botocore.parsers import ResponseParserError

    wrong = (
        ResponseParserError,
        exceptions.NoCredentialsError,
        exceptions.ParamValidationError,
        exceptions.PartialCredentialsError,
        exceptions.SSLError,
    )
    return isinstance(error, wrong)
