"""The routes of the page. All of them need a log-in and the permission to read the training DAG.

Every process of Airflow loads its plugins; what is heavy is imported when the API server first shows the page.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi import Path as PathParam
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, PlainTextResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.base import RequestResponseEndpoint

from cifar_tasks.errors import CifarError
from cifar_tasks.evaluation.names import shortened
from models_page.page_state import State

STATIC, PLOTLY = Path(__file__).parent / "static", "plotly.min.js"
FOREVER = "private, max-age=31536000, immutable"
"""For what is named by its digest."""
HEADERS = {
    # Scripts and styles come from this page's own routes only.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

_log = logging.getLogger(__name__)


def create_app(authorize: Callable[..., Any]) -> FastAPI:
    """`authorize` is a dependency of every route: it raises 401 or 403."""
    # No pages of FastAPI's own: Airflow mounts the app without authentication, and those would not have it.
    app = FastAPI(dependencies=[Depends(authorize)], openapi_url=None, docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def add_headers(request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers.update({name: value for name, value in HEADERS.items() if name not in response.headers})
        response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    @app.exception_handler(RequestValidationError)
    def refuse(request: Request, error: RequestValidationError) -> PlainTextResponse:
        """Short: FastAPI's own answer repeats what was sent."""
        problems = [f"{each['loc'][-1]}: {each['msg']}" for each in error.errors()]
        return PlainTextResponse(f"The address is not valid. {shortened('; '.join(problems), 300)}", 422)

    @app.get("/page")
    def page(query: Annotated[State, Query()]) -> HTMLResponse:
        """HTML without a head: Airflow's own page is around it."""
        from models_page import pages

        try:
            state = pages.complete(query)
            # `models.js` puts this address into the browser.
            headers = {} if state == query else {"Content-Location": f"page{state.link()}"}
            return HTMLResponse(pages.render(state), headers=headers)
        except CifarError as error:
            return HTMLResponse(pages.render_problem(query, str(error)))

    @app.get("/static/{name}")
    async def static(name: str, request: Request) -> Response:
        """304 if the browser has the file. It asks each time: after an update the page needs the new script."""
        from models_page.pages import plotly_bundle

        folder = plotly_bundle().parent if name == PLOTLY else STATIC
        response = await StaticFiles(directory=folder).get_response(name, request.scope)
        response.headers["Cache-Control"] = "private, no-cache"
        return response

    @app.get("/pictures/{dataset}/{number}.png")
    def picture(dataset: str, number: int) -> Response:
        """A test image of a dataset version."""
        from models_page import pictures

        try:
            return Response(pictures.png(dataset, number), media_type="image/png", headers={"Cache-Control": FOREVER})
        except (CifarError, IndexError) as error:
            _log.warning("picture %s of %s: %s", number, dataset, error)
            raise HTTPException(404) from None

    @app.get("/figures/{sha256}.png")
    def figure(sha256: Annotated[str, PathParam(pattern="^[0-9a-f]{64}$")]) -> Response:
        """What a task has drawn for the person whom Airflow asks."""
        from models_page.pictures import figure_png

        try:
            return Response(figure_png(sha256), media_type="image/png", headers={"Cache-Control": FOREVER})
        except (CifarError, KeyError) as error:
            _log.warning("figure %s: %s", sha256, error)
            raise HTTPException(404) from None

    return app
