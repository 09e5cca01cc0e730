"""The application behind the pages, below `/training` of Airflow's api-server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles

from airflow_training.plugins import routes_job, routes_lists
from airflow_training.plugins.job_refs import InvalidRef

_HERE = Path(__file__).parent
PAGES = ("job", "compare", "jobs")

# Scripts and styles come from files of ours only, and the page can neither send a form nor be framed by others.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


def application() -> FastAPI:
    """Make it: the pages, which hold no data, what they load, and the JSON that they ask for."""
    app = FastAPI(title="Training", openapi_url=None)
    app.middleware("http")(_headers)
    app.add_exception_handler(InvalidRef, _invalid)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.include_router(routes_job.router, prefix="/api")
    app.include_router(routes_lists.router, prefix="/api")
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    for page in PAGES:
        app.add_api_route(f"/{page}", _shows(_HERE / "pages" / f"{page}.html"))
    return app


def _shows(page: Path) -> Callable[[], FileResponse]:
    def show() -> FileResponse:
        return FileResponse(page, media_type="text/html")

    return show


async def _headers(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await go_on(request)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    # Pages and scripts are asked about by their ETag each time: those of another version do not go together.
    is_data = response.headers.get("Content-Type", "").startswith("application/json")
    response.headers["Cache-Control"] = "no-store" if is_data else "no-cache"
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        said = "; ".join(f"{mistake['loc'][-1]}: {mistake['msg']}" for mistake in error.errors())
        return JSONResponse({"detail": f"{said}."}, 422)
    return JSONResponse({"detail": str(error)}, 422)
