"""Does object storage keep what it is given, and from whom does it keep it?"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from cifar_tasks.deployment.doctor.deployment import TIMEOUT, Deployment, Limits
from cifar_tasks.deployment.doctor.finding import CannotTell, Finding, failure, ok, skipped, warning
from cifar_tasks.storage.s3 import s3_client

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ROLES = "The rules of the buckets are in docker/deployment.py; let init set them again: docker compose up -d init"


def write_and_read(deployment: Deployment) -> Finding:
    from botocore.exceptions import ClientError

    content = secrets.token_bytes(1024)
    try:
        with _object(deployment, content) as (client, place):
            read = client.get_object(**place)["Body"].read()
    except ClientError as error:
        return failure(f"refused: {_code(error)}", ROLES)
    if read != content:
        return failure("what was read is not what was written", "Stop training, and check the disks of the S3 server")
    return ok("an object written, read back and deleted")


def conditional_write(deployment: Deployment) -> Finding:
    """What a second writer is refused by; leases and manifests rest on it."""
    from botocore.exceptions import ClientError

    with _object(deployment, b"first") as (client, place):
        try:
            client.put_object(**place, Body=b"second", IfNoneMatch="*")
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            if status == 412:
                return ok("an object that exists is not overwritten (If-None-Match: *)")
            return failure(
                f"If-None-Match is answered with {status} {_code(error)}",
                "Use an S3 server that has conditional writes",
            )
    return failure(
        "If-None-Match is ignored: two trainings could overwrite each other",
        "Use an S3 server that has conditional writes (SeaweedFS 4.48, AWS, MinIO, Ceph)",
    )


@contextmanager
def _object(deployment: Deployment, content: bytes) -> "Iterator[tuple[S3Client, Any]]":
    """An object of a name of its own where trainers may delete; gone afterwards."""
    client = s3_client(attempts=1, read_timeout=TIMEOUT)
    place: Any = {"Bucket": deployment.settings.bucket, "Key": f"runs/doctor/checkpoints/{secrets.token_hex(8)}"}
    client.put_object(**place, Body=content)
    try:
        yield client, place
    finally:
        client.delete_object(**place)


def strangers(deployment: Deployment) -> Finding:
    status, _ = _anonymous(deployment)
    if status in (401, 403):
        return ok("a request without a key is refused")
    return failure(
        f"a request without a key is answered ({status})",
        "Take away the bucket's public access, or start S3 with keys (docker/storage.py)",
    )


def deleting_data(deployment: Deployment) -> Finding:
    """Asks to delete an object that never was: refused, or without effect."""
    from botocore.exceptions import ClientError

    if deployment.embedded:
        return skipped("one identity, which may do everything: the stack of one person")
    client = s3_client(attempts=1, read_timeout=TIMEOUT)
    try:
        client.delete_object(Bucket=deployment.settings.bucket, Key=f"datasets/doctor-{secrets.token_hex(8)}")
    except ClientError as error:
        if _code(error) in ("AccessDenied", "403"):
            return ok(f"{os.environ.get('AWS_ACCESS_KEY_ID')} may not delete data sets")
        raise
    return judge_deleting(os.environ.get("AWS_ACCESS_KEY_ID", ""))


def judge_deleting(identity: str) -> Finding:
    """Of an identity that may delete. `trainer` is the deployment's own; a key of another S3 is its owner's choice."""
    if identity == "trainer":
        return failure("trainer may delete data sets", ROLES)
    return warning(
        f"{identity} may delete data sets, and so may every training",
        "Give trainers a key of their own that may not: the rules are in docker/deployment.py",
    )


def clock(deployment: Deployment) -> Finding:
    return judge_clock(clock_difference(deployment.now, lambda: _anonymous(deployment)[1]["date"]), deployment.limits)


def clock_difference(now: Callable[[], float], date: Callable[[], str]) -> float:
    """Seconds by which this machine is ahead of a server, whose answer's `Date` header tells whole ones."""
    before = now()
    there = parsedate_to_datetime(date()).timestamp()
    after = now()
    if before > there + 1:
        return before - there - 1
    return min(after - there, 0.0)


def judge_clock(ahead: float, limits: Limits) -> Finding:
    says = f"this machine is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}"
    remedy = "Set the clocks of both machines by NTP (timedatectl set-ntp true); at 15 minutes S3 refuses all requests"
    if abs(ahead) > limits.clock_failure:
        return failure(says, remedy)
    if abs(ahead) > limits.clock_warning:
        return warning(says, remedy)
    return ok("the same as here" if abs(ahead) < 1 else says)


def _anonymous(deployment: Deployment) -> tuple[int, dict[str, str]]:
    """Status and headers of the answer to a request that nobody signed."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(
        signature_version=UNSIGNED, connect_timeout=TIMEOUT, read_timeout=TIMEOUT, retries={"total_max_attempts": 1}
    )
    session = boto3.session.Session()
    client = session.client("s3", region_name=session.region_name or "us-east-1", config=config)
    try:
        answer: Any = client.list_objects_v2(Bucket=deployment.settings.bucket, MaxKeys=1)
    except ClientError as error:
        answer = error.response
    except BotoCoreError as error:
        raise CannotTell("S3 does not answer") from error
    about = answer["ResponseMetadata"]
    return about["HTTPStatusCode"], about["HTTPHeaders"]


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))
