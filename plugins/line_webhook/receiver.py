"""The route of the webhook. It has a token of its own, because that of an Airflow user expires."""

import hmac
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic_settings import SettingsError
from starlette.concurrency import run_in_threadpool

from cifar_tasks.data.lines.line_notifications import Notification, notified_lines
from cifar_tasks.settings import Settings

MAX_BYTES = 2**20
"""SeaweedFS tells the parts of an object too: about 300 bytes for each of at most 1,000, twice after an update."""

_log = logging.getLogger(__name__)


def create_receiver(start: Callable[[Sequence[str]], dict[str, str]]) -> FastAPI:
    """`start` checks these lines, and tells for each what it did; `LookupError`: Airflow does not know one yet."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await run_in_threadpool(_start_all, start)
        yield

    # No pages of FastAPI's own: Airflow mounts the app without authentication.
    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)

    @app.post("/changed")
    async def changed(request: Request) -> Response:
        """204 if no line is meant: a sender repeats what is refused."""
        settings = Settings()
        _authenticate(request, settings)
        lines = notified_lines(settings.dataset_lines, _objects(await _body(request)))
        if not lines:
            return Response(status_code=204)
        try:
            return JSONResponse(await run_in_threadpool(start, lines), 202)
        except LookupError as error:
            _log.warning("webhook: %s", error)
            raise HTTPException(503, str(error), {"Retry-After": "30"}) from None

    return app


def _start_all(start: Callable[[Sequence[str]], dict[str, str]]) -> None:
    """Of notifications that were sent while the API server was down. SeaweedFS 4.48 sends none a second time."""
    try:
        settings = Settings()
    except (ValidationError, SettingsError):  # whose text has the values
        _log.warning("webhook: no dataset line is checked at the start, because settings CIFAR_* are not valid")
        return
    if settings.webhook_token is None:
        return
    for line in settings.dataset_lines:
        try:
            start([line])
        except Exception as error:  # the API server has other work than this
            _log.warning("webhook: the dataset line %s is not checked at the start: %s", line, error)


def _authenticate(request: Request, settings: Settings) -> None:
    if settings.webhook_token is None:
        raise HTTPException(404)
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    wanted = settings.webhook_token.get_secret_value()
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), wanted.encode()):
        raise HTTPException(401, "The bearer token is not that of CIFAR_WEBHOOK_TOKEN.", {"WWW-Authenticate": "Bearer"})


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            raise HTTPException(413, f"The body may have {MAX_BYTES:,} bytes.")
    return bytes(body)


def _objects(body: bytes) -> list[str]:
    try:
        return Notification.model_validate_json(body).objects()
    except ValidationError:
        raise HTTPException(422, 'The body is JSON with the changed object: {"key": "s3://BUCKET/KEY"}') from None
