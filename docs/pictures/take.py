"""Takes the screenshots of the docs in a running Airflow: `make pictures`, fifteen minutes.

A real Airflow and a real training service in a temporary folder run the Dags of the repository. Debian's Chromium,
driven by Playwright, opens the pages as a logged-in user. All screenshots are taken in one run, so that they are
consistent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Locator, Page

from airflow_training.local.airflow import LocalAirflow
from airflow_training.local.airflow_api import USER
from airflow_training.local.guard import guarded_folder
from airflow_training.local.process import wait_until
from airflow_training.local.service import LocalService
from tests.engines.browser import running_browser

CHECKOUT = Path(__file__).parents[2]
HERE = Path(__file__).parent
# Of the window; more device pixels keep the text sharp.
WIDTH, HEIGHT, SHARPNESS = 1360, 760, 1.25
# Of a window that shows a whole dialog.
TALL = 1500
# The pages have few colors: a palette reduces the file to a fifth.
COLORS = 128
# Milliseconds; the first training installs TensorFlow.
PATIENCE = 300_000


@dataclass(frozen=True)
class Demo:
    """A running Airflow in a browser."""

    airflow: LocalAirflow
    page: Page

    def open(self, path: str, shown: str) -> None:
        """Open a page and wait until it shows a text."""
        self.page.goto(f"{self.airflow.url}{path}")
        self.page.get_by_text(shown).first.wait_for(timeout=PATIENCE)

    @contextmanager
    def window(self, height: int) -> Iterator[None]:
        """Use a window of another height."""
        self.page.set_viewport_size({"width": WIDTH, "height": height})
        yield
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})

    @contextmanager
    def dark(self) -> Iterator[None]:
        """Use the dark theme for pages that follow the system's."""
        self.page.emulate_media(color_scheme="dark")
        yield
        self.page.emulate_media(color_scheme="light")

    def take(self, name: str, part: str = "body", before: Locator | None = None) -> None:
        """Take a screenshot of a part of the page, or of everything above an element, once the page is idle."""
        self.page.wait_for_load_state("networkidle")
        file = HERE / f"{name}.png"
        self.page.locator(part).first.screenshot(path=file, animations="disabled")
        with Image.open(file) as picture:
            box = before.bounding_box() if before else None
            whole = picture.crop((0, 0, picture.width, int((box["y"] - 12) * SHARPNESS))) if box else picture
            whole.convert("RGB").quantize(COLORS).save(file, optimize=True)
        print(f"{file.relative_to(CHECKOUT)} ({file.stat().st_size // 1024} KiB)")


def connection_form(demo: Demo) -> None:
    demo.open("/connections", "training_default")
    demo.page.get_by_role("button", name="Edit").first.click()
    demo.page.get_by_text("OAuth2 client id").first.wait_for()
    with demo.window(TALL):
        demo.take("connection", "[role=dialog]:visible")


def params_form(demo: Demo) -> None:
    demo.airflow.unpause("train_on_demand")
    demo.open("/dags/train_on_demand", "train_on_demand")
    demo.page.get_by_role("button", name="Trigger").first.click()
    demo.page.get_by_text("Batch size").first.wait_for()
    with demo.window(TALL):
        demo.take("params", "[role=dialog]:visible")


def live_log(demo: Demo) -> None:
    # Airflow starts last night's run.
    demo.airflow.unpause("train_nightly")
    wait_until(lambda: bool(runs(demo)), "run of train_nightly", timeout=60, interval=0.5)
    (run,) = runs(demo)
    demo.open(f"/dags/train_nightly/runs/{run}/tasks/train", '"epoch": 3')
    # Wrap long lines.
    demo.page.keyboard.press("w")
    demo.take("live-log")
    demo.airflow.wait_for_run("train_nightly", run)
    demo.open(f"/dags/train_nightly/runs/{run}/tasks/train/xcom", "return_value")
    demo.page.get_by_role("button", name="Expand").first.click()
    with demo.window(1220):
        demo.take("xcom")


def runs(demo: Demo) -> list[str]:
    return [run["dag_run_id"] for run in demo.airflow.api("GET", "/dags/train_nightly/dagRuns")["dag_runs"]]


def asset_event(demo: Demo) -> None:
    demo.open("/assets", "census_model")
    demo.page.get_by_text("census_model").first.click()
    demo.page.get_by_text("1 Asset Event").first.wait_for()
    demo.page.locator(".codicon-folding-collapsed").first.click()
    demo.take("asset-event")


def graph(demo: Demo) -> None:
    demo.airflow.unpause("train_and_deploy")
    run = demo.airflow.trigger("train_and_deploy")
    demo.airflow.wait_for_run("train_and_deploy", run)
    demo.open(f"/dags/train_and_deploy/runs/{run}", "deployment")
    demo.page.keyboard.press("g")
    for button in ("Expand all task groups", "Collapse Details Panel"):
        demo.page.get_by_role("button", name=button).first.click()
    demo.page.get_by_text("smoke_test").first.wait_for()
    with demo.window(640):
        demo.page.get_by_role("button", name="Fit View").first.click()
        demo.take("graph", ".react-flow")


def training_page(demo: Demo) -> None:
    run = demo.airflow.trigger("train_on_demand", {"epochs": 20})
    task = f"/dags/train_on_demand/runs/{run}/tasks/train"
    # The target of the task's button.
    demo.page.goto(f"{demo.airflow.url}{task}/plugin/training")
    frame = demo.page.frame_locator("iframe")
    # The legend shows the last epoch.
    frame.locator(".u-value").get_by_text(re.compile("^1[0-9]$")).first.wait_for(timeout=PATIENCE)
    with demo.window(TALL):
        demo.take("training-page", before=frame.get_by_role("heading", name="Parameters"))
    demo.airflow.wait_for_run("train_on_demand", run)
    query = urlencode({"dag_id": "train_on_demand", "run_id": run, "task_id": "train"})
    with demo.window(TALL), demo.dark():
        demo.open(f"/training/job?{query}", "Succeeded")
        demo.page.get_by_text("serving_default").first.wait_for()
        demo.take("training-page-dark", before=demo.page.get_by_role("heading", name="Parameters"))


def comparison(demo: Demo) -> None:
    for batch_size in (64, 512):
        run = demo.airflow.trigger("train_on_demand", {"epochs": 20, "batch_size": batch_size})
        demo.airflow.wait_for_run("train_on_demand", run)
    demo.page.goto(f"{demo.airflow.url}/dags/train_on_demand/plugin/trainings")
    frame = demo.page.frame_locator("iframe")
    frame.get_by_role("img", name=re.compile(r"^loss, .*; .*; ")).wait_for(timeout=PATIENCE)
    with demo.window(1130):
        demo.take("comparison")


def jobs_list(demo: Demo) -> None:
    for number in (1, 2, 3):
        demo.airflow.trigger("train_on_demand", {"epochs": 12, "job_name": f"census-{number}"})
    demo.page.goto(f"{demo.airflow.url}/plugin/training-jobs")
    frame = demo.page.frame_locator("iframe")
    frame.get_by_role("cell", name="pending").first.wait_for(timeout=PATIENCE)
    with demo.window(520):
        demo.take("training-jobs")


PICTURES = (connection_form, params_form, live_log, asset_event, training_page, comparison, jobs_list, graph)


def main() -> None:
    with ExitStack() as cleanup:
        folder = cleanup.enter_context(guarded_folder("pictures-"))
        service = LocalService(folder / "service")
        settings = {"AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True", "MODELS_FOLDER": str(folder / "models")}
        airflow = LocalAirflow(folder / "airflow", CHECKOUT / "dags", settings)
        cleanup.enter_context(service.running())
        cleanup.callback(airflow.stop)
        airflow.migrate()
        airflow.start()
        airflow.connect("training_default", service.url, service.add_client("airflow"))
        browser = cleanup.enter_context(running_browser())
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=SHARPNESS)
        page.goto(airflow.url)
        page.get_by_label("Username").fill(USER)
        page.get_by_label("Password").fill(airflow.password)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_load_state("networkidle")
        demo = Demo(airflow, page)
        for take in PICTURES:
            take(demo)


if __name__ == "__main__":
    main()
