"""The training pages in a real browser, with a real Airflow and a real service."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, FrameLocator, Page, Route, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeout

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.airflow_api import USER
from tests.airflow.proxy import Proxy, reset
from tests.airflow.support import Training
from tests.engines.browser import hindrances, running_browser
from tests.patience import PATIENCE, SLOWNESS

# Milliseconds.
_PATIENCE = PATIENCE * 1000
_MODULES_RUN = 30_000 * SLOWNESS
DESKTOP, PHONE = (1440, 900), (390, 844)

LEARNS = """
import json, time
from pathlib import Path
epoch = 0
while not Path("go").exists():
    epoch += 1
    metrics = {"loss": 1 / epoch, "val_loss": 1.1 / epoch, "__proto__": epoch, "<img src=x onerror=alert(1)>": 2}
    print(json.dumps({"metrics": metrics, "epoch": epoch}), flush=True)
    print("<img src=x onerror='document.title=1'> <script>alert(1)</script>", flush=True)
    time.sleep(0.2)
Path("model/1").mkdir(parents=True)
Path("model/1/saved_model.pb").write_text("m")
"""

_PLOT = "document.querySelector('.charts > div').chart.plot"
_SHOWN = f"[{_PLOT}.scales.x.min, {_PLOT}.scales.x.max]"
# It has more points, and all are shown.
_GROWN = f"""seen => {_PLOT}.data[0].length > seen + 3
    && {_PLOT}.scales.x.min === {_PLOT}.data[0][0] && {_PLOT}.scales.x.max === {_PLOT}.data[0].at(-1)"""
# Milliseconds: more than a page waits between two requests.
_LONG = 60_000
# A browser without windows hides no tab.
_HIDDEN = """hidden => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
    document.dispatchEvent(new Event("visibilitychange"));
}"""

expect.set_options(timeout=_PATIENCE)

Train = Callable[..., Training]
Look = tuple[tuple[int, int], Literal["light", "dark"]]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with running_browser() as browser:
        yield browser


class Visitor:
    """A user who has logged in, with a window size.

    Attributes:
        page: The browser's page.
        errors: The browser's errors.
    """

    def __init__(self, airflow: LocalAirflow, page: Page, user: str) -> None:
        self.airflow = airflow
        self.page = page
        self.errors: list[str] = []
        page.set_default_timeout(_PATIENCE)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        page.goto(airflow.url)
        page.get_by_label("Username").fill(user)
        page.get_by_label("Password").fill(json.loads((airflow.home / "passwords.json").read_text())[user])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(lambda url: "/auth/" not in url)

    def open(self, name: str, **query: str) -> Page:
        """Open one of the three pages outside of Airflow's UI."""
        self.page.goto(f"{self.airflow.url}/training/{name}?{urlencode(query)}")
        # Chromium (156) rarely loads the modules of a page and runs none, with one of them taken from the page before.
        try:
            self.page.locator("html[data-theme]").wait_for(state="attached", timeout=_MODULES_RUN)
        except PlaywrightTimeout:
            self.page.reload()
        expect(self.page.locator("#page")).to_have_attribute("aria-busy", "false")
        return self.page

    def open_job(self, training: Training) -> Page:
        return self.open("job", dag_id=training.dag_id, run_id=training.run, task_id="train")

    def points(self, title: str) -> int:
        """The number of points in a chart."""
        chart = self.page.locator(".charts > div").filter(has=self.page.get_by_text(title, exact=True)).first
        return int(chart.evaluate("host => host.chart.plot.data[0].length"))


@contextmanager
def visiting(
    airflow: LocalAirflow,
    chromium: Browser,
    user: str = USER,
    size: tuple[int, int] = DESKTOP,
    theme: Literal["light", "dark"] = "light",
) -> Iterator[Visitor]:
    context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=theme)
    try:
        yield Visitor(airflow, context.new_page(), user)
    finally:
        context.close()


@pytest.fixture
def visitor(airflow: LocalAirflow, chromium: Browser) -> Iterator[Visitor]:
    with visiting(airflow, chromium) as visitor:
        yield visitor
        assert visitor.errors == []


@pytest.fixture(scope="module")
def learning(airflow: LocalAirflow, chromium: Browser, under_test: Any) -> Iterator[Training]:
    """A training that runs until the end of the tests."""
    training = Training(airflow, under_test, "once_deferred", script=LEARNS)
    training.wait_for_job()
    yield training
    training.leave()


@pytest.fixture(scope="module")
def ended(airflow: LocalAirflow, chromium: Browser, under_test: Any) -> Training:
    """A successful training of the same task."""
    training = Training(airflow, under_test, "once_deferred", script=LEARNS, requirements="six>=1.16")
    training.wait_for_line("<img src=x onerror='document.title=1'> <script>alert(1)</script>")
    training.go_on()
    training.end()
    return training


def test_a_curve_grows_while_its_job_trains(visitor: Visitor, learning: Training) -> None:
    page = visitor.open_job(learning)
    expect(page.get_by_role("heading", name=learning.name)).to_be_visible()
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    page.get_by_text("loss", exact=True).first.wait_for()
    seen = visitor.points("loss")
    page.wait_for_function(_GROWN, arg=seen)


def test_what_was_drawn_larger_stays_so(visitor: Visitor, learning: Training) -> None:
    page = visitor.open_job(learning)
    page.get_by_text("loss", exact=True).first.wait_for()
    page.evaluate(f"{_PLOT}.setScale('x', {{ min: 2, max: 4 }})")
    seen = visitor.points("loss")
    page.wait_for_function(f"seen => {_PLOT}.data[0].length > seen", arg=seen)
    assert page.evaluate(_SHOWN) == [2, 4]
    before = page.evaluate_handle(_PLOT)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"before => {_PLOT} !== before", arg=before)
    assert page.evaluate(_SHOWN) == [2, 4], "also of a chart that is drawn again"


def test_the_machine_that_a_job_uses_is_shown_against_what_it_may_use(visitor: Visitor, learning: Training) -> None:
    page = visitor.open_job(learning)
    expect(page.get_by_role("img", name=re.compile("^Memory, MB by time: memory used"))).to_be_visible()
    expect(page.get_by_role("img", name=re.compile("allocated"))).not_to_have_count(0)


def test_the_log_grows_and_can_be_searched(visitor: Visitor, learning: Training) -> None:
    page = visitor.open_job(learning)
    lines = page.get_by_label("Log", exact=True).get_by_role("listitem")
    expect(lines.first).to_be_visible()
    count = lines.count()
    expect(lines.nth(count + 5)).to_be_attached()
    line = page.get_by_label("Log", exact=True).get_by_text(re.compile('"epoch": [0-9]+}')).last.inner_text()
    page.get_by_label("Search").fill(line.split(", ")[-1])
    expect(lines).to_have_count(1)
    expect(page.get_by_text(re.compile("^1 of .* lines"))).to_be_visible()


def test_the_output_of_a_script_is_escaped(visitor: Visitor, learning: Training) -> None:
    page = visitor.open_job(learning)
    expect(page.get_by_text("<script>alert(1)</script>").first).to_be_attached()
    expect(page.get_by_text("__proto__", exact=True).first).to_be_visible()
    expect(page.get_by_text("<img src=x onerror=alert(1)>", exact=True).first).to_be_visible()
    assert page.title() == f"Training {learning.name}"
    assert page.locator("img").count() == 0


def test_the_name_of_a_job_is_escaped(visitor: Visitor, learning: Training) -> None:
    name = "<script>alert(1)</script>"

    # No job of this service can have it.
    def rename(route: Route) -> None:
        reply = route.fetch()
        data = reply.json()
        data["job"]["name"] = name
        route.fulfill(response=reply, json=data)

    visitor.page.route("**/training/api/job?*", rename)
    page = visitor.open_job(learning)
    expect(page.get_by_role("heading", name=name).first).to_be_visible()


def test_the_packages_of_a_training_are_listed_on_request(visitor: Visitor, ended: Training) -> None:
    page = visitor.open_job(ended)
    package = page.get_by_text(re.compile("^six=="))
    expect(package).to_be_hidden()
    page.get_by_text(re.compile("^Python 3.* packages$")).click()
    expect(package).to_be_visible()


def test_runs_of_a_task_are_compared(visitor: Visitor, learning: Training, ended: Training) -> None:
    page = visitor.open("compare", dag_id=learning.dag_id)
    rows = page.get_by_role("region", name="Trainings").get_by_role("row")
    expect(rows.filter(has_text="running")).not_to_have_count(0)
    expect(rows.filter(has_text="succeeded")).not_to_have_count(0)
    expect(page.get_by_role("img", name=re.compile("^loss, loss by epoch: .* last .*; .* last "))).to_be_visible()
    page.get_by_role("button", name="loss", exact=True).click()
    expect(page.get_by_role("columnheader", name="loss", exact=True)).to_have_attribute("aria-sort", "descending")


def test_all_jobs_of_a_connection_are_listed(visitor: Visitor, learning: Training, ended: Training) -> None:
    page = visitor.open("jobs", conn_id="training_default")
    page.get_by_label("Search").fill(learning.name)
    rows = page.get_by_role("region", name="Jobs").get_by_role("row")
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text("running")
    page.get_by_role("link", name=learning.name).click()
    expect(page.get_by_role("heading", name=learning.name)).to_be_visible()


def test_a_job_is_canceled_after_a_confirmation(visitor: Visitor, train: Train) -> None:
    training = train("once_deferred", script=LEARNS)
    training.wait_for_job()
    page = visitor.open_job(training)
    # With the keyboard only.
    page.get_by_role("button", name="Cancel …").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Keep it running")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    assert training.jobs[0].state.value == "RUNNING"
    page.get_by_role("button", name="Cancel …").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_text("canceled", exact=True)).to_be_visible()
    expect(page.get_by_role("button", name="Cancel …")).to_be_hidden()
    training.end("failed")


def test_a_user_without_access_to_the_dag_sees_nothing(
    airflow: LocalAirflow, chromium: Browser, learning: Training
) -> None:
    with visiting(airflow, chromium, "stranger") as stranger:
        page = stranger.open_job(learning)
        expect(page.get_by_role("alert")).to_be_visible()
        assert learning.name not in page.content()


def test_a_user_with_read_access_only_cannot_cancel(
    airflow: LocalAirflow, chromium: Browser, learning: Training
) -> None:
    with visiting(airflow, chromium, "viewer") as viewer:
        page = viewer.open_job(learning)
        expect(page.get_by_role("heading", name=learning.name)).to_be_visible()
        expect(page.get_by_role("button", name="Cancel …")).to_have_count(0)
        query = urlencode({"dag_id": learning.dag_id, "run_id": learning.run, "task_id": "train"})
        headers = {"X-Requested-By": "training"}
        reply = page.request.post(f"{airflow.url}/training/api/cancel?{query}", headers=headers)
        assert reply.status == 403
    assert learning.jobs[0].state.value == "RUNNING"


def test_known_data_is_shown_while_the_service_is_unavailable(
    airflow: LocalAirflow, visitor: Visitor, train: Train, proxy: Proxy
) -> None:
    training = train("once_deferred", connection="training_proxy", script=LEARNS)
    training.wait_for_job()
    page = visitor.open_job(training)
    expect(page.get_by_text("running", exact=True)).to_be_visible()
    proxy.inject(".*", "", reset, times=math.inf)
    expect(page.get_by_text("This page shows the last known state").first).to_be_visible()
    expect(page.get_by_role("heading", name=training.name)).to_be_visible()
    proxy.heal()
    expect(page.get_by_text("This page shows the last known state")).to_have_count(0)


def test_a_hidden_tab_sends_no_requests(visitor: Visitor, learning: Training) -> None:
    # Its clock stands still, so that it is between two requests when it is hidden.
    visitor.page.clock.install(time=0)
    # It runs until it is paused, which may take longer on a busy machine.
    visitor.page.clock.pause_at(24 * 3600)
    page = visitor.open_job(learning)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.evaluate(_HIDDEN, True)
    page.clock.run_for(_LONG)
    assert asked == []
    with page.expect_request("**/training/api/job?*"):
        page.evaluate(_HIDDEN, False)
    with page.expect_request("**/training/api/job?*"):
        page.clock.resume()


@pytest.mark.parametrize("look", [(DESKTOP, "light"), (DESKTOP, "dark"), (PHONE, "light")])
def test_the_pages_are_accessible_and_nothing_is_cut_off(
    airflow: LocalAirflow, chromium: Browser, learning: Training, ended: Training, look: Look
) -> None:
    size, theme = look
    with visiting(airflow, chromium, size=size, theme=theme) as visitor:
        for training in (learning, ended):
            visitor.open_job(training).locator(".uplot").first.wait_for()
            look_closely(visitor.page, size)
        visitor.open("compare", dag_id=learning.dag_id).locator(".uplot").first.wait_for()
        look_closely(visitor.page, size)
        look_closely(visitor.open("jobs", conn_id="training_default"), size)
        assert visitor.errors == []


def look_closely(page: Page, size: tuple[int, int]) -> None:
    assert hindrances(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]


def in_airflow(page: Page) -> FrameLocator:
    return page.frame_locator("iframe")


def test_a_training_is_one_click_from_its_task(visitor: Visitor, learning: Training) -> None:
    page = visitor.page
    page.goto(f"{visitor.airflow.url}/dags/{learning.dag_id}/runs/{learning.run}/tasks/train")
    page.get_by_role("link", name="Training", exact=True).click()
    expect(in_airflow(page).get_by_role("heading", name=learning.name)).to_be_visible()
    # The frame may not navigate the window.
    in_airflow(page).get_by_role("link", name="Airflow's log").click()
    expect(page.locator("iframe")).to_have_count(0)
    page.wait_for_url(re.compile("/tasks/train([?].*)?$"))


def test_the_pages_are_in_the_navigation_and_follow_the_theme(visitor: Visitor, learning: Training) -> None:
    page = visitor.page
    page.goto(f"{visitor.airflow.url}/dags/{learning.dag_id}")
    page.get_by_role("link", name="Trainings").click()
    frame = in_airflow(page)
    expect(frame.get_by_role("heading", name="Compare trainings")).to_be_visible()
    page.evaluate("document.documentElement.classList.replace('light', 'dark')")
    expect(frame.locator("html[data-theme=dark]")).to_be_attached()
    page.evaluate("document.documentElement.classList.replace('dark', 'light')")
    expect(frame.locator("html[data-theme=light]")).to_be_attached()
