"""The speed and cost of the pages in Airflow: `python -m benchmarks.training_page`, three minutes.

- The api-server is started alternately with and without the plugin, until it answers.
- A job on a real service logs 100,000 values of a metric. Debian's Chromium, each time with an empty cache, opens the
  job's page in a real Airflow until the curve is drawn.
- The requests of fifty tabs arrive at once; those that reach the service are counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from urllib.parse import urlencode

import requests
from playwright.sync_api import Browser
from requests.adapters import HTTPAdapter

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.airflow_api import USER
from airflow_training.local.process import LocalProcess, wait_until
from benchmarks.parts.airflow_and_service import airflow_and_service
from tests.airflow.proxy import Proxy
from tests.airflow.support import ServiceUnderTest, Training
from tests.engines.browser import running_browser

STARTS, OPENINGS, TABS, VALUES = 7, 7, 50, 100_000
WITHOUT = """
from airflow._shared import module_loading
original = module_loading.entry_points_with_dist
module_loading.entry_points_with_dist = lambda group: [
    (point, dist) for point, dist in original(group) if not point.value.startswith("airflow_training.plugins")
]
from airflow.__main__ import main
main()
"""
SCRIPT = f"""
import json, random, time
from pathlib import Path
for step in range({VALUES}):
    print(json.dumps({{"metrics": {{"loss": 1 / (step + 1) + random.random() / 50}}, "step": step}}))
Path("model").mkdir()
Path("model/saved_model.pb").touch()
"""
PARTS = ("job", "metrics", "usage", "model", "log")


def seconds_to_answer(server: LocalProcess, url: str, *, has_page: bool) -> float:
    """Start an api-server, and stop it once it has answered."""
    began = time.monotonic()
    server.start()
    try:
        wait_until(lambda: answers(f"{url}/api/v2/version"), "The api-server", timeout=120, interval=0.02)
        seconds = time.monotonic() - began
        if answers(f"{url}/training/static/style.css") != has_page:
            raise AssertionError(f"the training page is {'not ' if has_page else ''}available")
        return seconds
    finally:
        server.stop()


def answers(url: str) -> bool:
    try:
        reply = requests.get(url, timeout=5)
    except requests.RequestException:
        return False
    # For an unknown path Airflow returns the page of its UI.
    return reply.ok and "html" not in reply.headers["Content-Type"]


def starts(airflow: LocalAirflow) -> None:
    """Measure the start of the api-server."""
    server = airflow.components["api-server"]
    server.stop()
    bare = airflow.component("api-server", "api-server-without")
    bare.command = [sys.executable, "-c", WITHOUT, *bare.command[3:]]
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for _ in range(STARTS):
        seconds["with"].append(seconds_to_answer(server, airflow.url, has_page=True))
        seconds["without"].append(seconds_to_answer(bare, airflow.url, has_page=False))
    server.start()
    wait_until(airflow.healthy, "Airflow", timeout=120)
    for name, measured in seconds.items():
        print(f"api-server {name} the plugin: {median(measured):.2f} s ({min(measured):.2f} to {max(measured):.2f})")
    print(f"api_server_start: {median(seconds['with']) / median(seconds['without']):.3f} ratio")


@contextmanager
def logged_in(airflow: LocalAirflow) -> Iterator[requests.Session]:
    """A logged-in session of Airflow's API."""
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(pool_maxsize=TABS))
        credentials = {"username": USER, "password": airflow.password}
        token = session.post(f"{airflow.url}/auth/token", json=credentials, timeout=30).json()["access_token"]
        session.headers["Authorization"] = f"Bearer {token}"
        yield session


def openings(airflow: LocalAirflow, browser: Browser, session: requests.Session, query: str) -> None:
    """Measure the time until the page of a job with many values is drawn."""
    token = str(session.headers["Authorization"]).removeprefix("Bearer ")
    seconds = []
    for _ in range(OPENINGS):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.add_cookies([{"name": "_token", "value": token, "url": airflow.url}])
        page = context.new_page()
        began = time.monotonic()
        page.goto(f"{airflow.url}/training/job?{query}")
        page.locator("#metrics .uplot").first.wait_for()
        seconds.append(time.monotonic() - began)
        points = page.evaluate("document.querySelector('#metrics > div').chart.plot.data[0].length")
        context.close()
    each_time = ", ".join(f"{each:.2f}" for each in seconds)
    print(f"page of a job with {VALUES:,} values, {points:,} of them drawn: {each_time} s")
    print(f"page_opens: {median(seconds):.2f} s")


def tabs(airflow: LocalAirflow, proxy: Proxy, session: requests.Session, query: str) -> None:
    """Count the requests that reach the service when many tabs are open."""
    counts = {}
    for number in (1, TABS):
        # Until all cached answers have expired.
        time.sleep(5)
        proxy.seen.clear()
        with ThreadPoolExecutor(max_workers=number) as pool:
            list(pool.map(lambda _: [ask(airflow, session, part, query) for part in PARTS], range(number)))
        counts[number] = len([path for _, path, _ in proxy.seen if "/api/" in path])
        print(f"{number} tabs: {number * len(PARTS)} requests to Airflow, {counts[number]} to the service")
    print(f"requests_of_fifty_tabs: {counts[TABS] / counts[1]:.1f} ratio")


def ask(airflow: LocalAirflow, session: requests.Session, part: str, query: str) -> int:
    """Request a part of a page; returns its bytes."""
    reply = session.get(f"{airflow.url}/training/api/{part}?{query}", timeout=60)
    reply.raise_for_status()
    return len(reply.content)


def measure(airflow: LocalAirflow, service: ServiceUnderTest) -> None:
    """Print the figures."""
    starts(airflow)
    with Proxy(service.local.url).running() as proxy, running_browser() as browser:
        airflow.connect("training_proxy", proxy.url, service.credentials)
        training = Training(airflow, service, "once_deferred", connection="training_proxy", script=SCRIPT)
        training.end()
        query = urlencode({"dag_id": training.dag_id, "run_id": training.run, "task_id": "train"})
        with logged_in(airflow) as session:
            openings(airflow, browser, session, query)
            tabs(airflow, proxy, session, query)


def main() -> None:
    """Measure and print."""
    with airflow_and_service() as (airflow, service):
        measure(airflow, service)


if __name__ == "__main__":
    main()
