"""The application behind the pages, mounted at `/training` of Airflow's api-server."""

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

# Scripts and styles come from our files only; the page can neither send a form nor be framed by other sites.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


def application() -> FastAPI:
    """Make the application: the pages, which contain no data, their static files, and their JSON API."""
    app = FastAPI(title="Training", openapi_url=None)
    app.middleware("http")(_headers)
    app.add_exception_handler(InvalidRef, _invalid)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.include_router(routes_job.router, prefix="/api")
    app.include_router(routes_lists.router, prefix="/api")
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    for page in PAGES:
        app.add_api_route(f"/{page}", _page(_HERE / "pages" / f"{page}.html"))
    return app


def _page(page: Path) -> Callable[[], FileResponse]:
    def show() -> FileResponse:
        return FileResponse(page, media_type="text/html")

    return show


async def _headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await call_next(request)
    response.headers["Content-Security-Policy"] = _POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    # Pages and scripts are revalidated by ETag each time, since those of different versions do not work together.
    is_data = response.headers.get("Content-Type", "").startswith("application/json")
    response.headers["Cache-Control"] = "no-store" if is_data else "no-cache"
    return response


async def _invalid(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        details = "; ".join(f"{detail['loc'][-1]}: {detail['msg']}" for detail in error.errors())
        return JSONResponse({"detail": f"{details}."}, 422)
    return JSONResponse({"detail": str(error)}, 422)
