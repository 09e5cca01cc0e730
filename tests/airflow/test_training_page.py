"""The training page in a running Airflow: its data, and access to it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from airflow_training.api.naming import job_id
from airflow_training.local.airflow import LocalAirflow
from airflow_training.xcom_keys import CLAIM_KEY, JOB_ID_KEY
from tests.airflow.proxy import Proxy, answers
from tests.airflow.support import SAVE, WAIT, Training
from tests.patience import PATIENCE, wait_for

Train = Callable[..., Training]
Ref = dict[str, Any]

OF_A_JOB = ("job", "metrics", "usage", "environment", "model", "log")


class Browser:
    """A user with the cookie of a login, as in Airflow's UI."""

    def __init__(self, airflow: LocalAirflow, user: str | None) -> None:
        self._url = f"{airflow.url}/training"
        self._session = requests.Session()
        if user:
            password = json.loads((airflow.home / "passwords.json").read_text())[user]
            login = {"username": user, "password": password}
            token = self._session.post(f"{airflow.url}/auth/token", json=login, timeout=PATIENCE).json()["access_token"]
            self._session.cookies.set("_token", token)

    def get(self, path: str, params: Any = None) -> requests.Response:
        return self._session.get(f"{self._url}/{path}", params=params, timeout=PATIENCE)

    def read(self, path: str, **params: Any) -> Any:
        """The reply, which must be a success."""
        reply = self.get(f"api/{path}", params)
        assert reply.ok, reply.text
        return reply.json()

    def cancel(self, ref: Ref, **headers: str) -> requests.Response:
        headers = headers or {"X-Requested-By": "training"}
        return self._session.post(f"{self._url}/api/cancel", params=ref, headers=headers, timeout=PATIENCE)

    def close(self) -> None:
        self._session.close()


@pytest.fixture
def browser(airflow: LocalAirflow) -> Iterator[Callable[[str | None], Browser]]:
    """Logs a user in."""
    browsers: list[Browser] = []

    def log_in(user: str | None) -> Browser:
        browsers.append(Browser(airflow, user))
        return browsers[-1]

    yield log_in
    for one in browsers:
        one.close()


@pytest.fixture
def admin(browser: Callable[[str | None], Browser]) -> Browser:
    return browser("admin")


def ref_of(training: Training) -> Ref:
    # As in the URL of the page of an unmapped task.
    return {"dag_id": training.dag_id, "run_id": training.run, "task_id": "train", "map_index": "{MAP_INDEX}"}


def wait_for_status(browser: Browser, ref: Ref, *statuses: str) -> Any:
    seen: list[Any] = []

    def reached() -> bool:
        reply = browser.get("api/job", ref)
        if reply.status_code == 404:  # the scheduler has not created the task instance yet
            return False
        seen.append(reply.json())
        return bool(seen[-1]["job"]) and seen[-1]["job"]["status"] in statuses

    wait_for(reached, f"{statuses} on the page")
    return seen[-1]


def lines(log: Any) -> list[str]:
    return [record["line"] for record in log["records"]]


def test_a_training_is_seen_while_it_runs_and_after_its_end(train: Train, admin: Browser) -> None:
    env = {"EPOCHS": 8, "API_TOKEN": "s3cr3t"}
    training = train("once_deferred", script=WAIT, requirements="six>=1.16", env=env)
    ref = ref_of(training)

    running = wait_for_status(admin, ref, "RUNNING")
    assert running["connection"] == "training_default"
    assert running["job"]["job_id"] == training.jobs[0].job_id
    assert running["job"]["name"] == training.name
    assert running["may_cancel"]
    assert running["service"]["reachable"]
    parameters = dict(running["parameters"])
    assert parameters["env.EPOCHS"] == "8"
    assert parameters["env.API_TOKEN"] == "***"
    assert running["task"]["url"].startswith("/dags/once_deferred/runs/")

    first = admin.read("log", **ref)
    grown: list[Any] = []

    def grows() -> bool:
        grown.append(admin.read("log", **ref, after=first["next"] - 1, tail=first["tail"]))
        return bool(grown[-1]["records"])

    wait_for(grows, "More lines")
    assert not grown[-1]["reset"]
    assert not set(lines(first)) & set(lines(grown[-1])), "no line twice"
    assert grown[-1]["records"][0]["n"] == first["next"]
    reread = admin.read("log", **ref, after=first["next"] - 1, tail="of another process")
    assert reread["reset"]
    assert reread["records"][0]["n"] == 1

    training.go_on()
    training.end()
    ended = wait_for_status(admin, ref, "SUCCEEDED")
    assert ended["location"] == training.xcom()
    assert ended["job"]["duration"] > 0
    assert not ended["may_cancel"]
    environment = admin.read("environment", **ref)
    assert environment["python"].startswith("3.")
    assert [package for package in environment["packages"] if package.startswith("six==")]
    wait_for(lambda: admin.read("log", **ref)["ended"], "The end of the log")
    assert "saved" in lines(admin.read("log", **ref))
    trainings = admin.read("trainings", dag_id="once_deferred")["trainings"]
    (listed,) = [one for one in trainings if one["name"] == training.name]
    assert (listed["status"], listed["parameters"]["env.EPOCHS"]) == ("SUCCEEDED", "8")
    assert listed["ref"] == {**ref, "map_index": -1}
    chosen = admin.read("trainings", ti=json.dumps(listed["ref"]))
    assert [one["name"] for one in chosen["trainings"]] == [training.name]
    jobs = admin.read("jobs", conn_id="training_default")
    (shown,) = [job for job in jobs["jobs"] if job["job_id"] == listed["job_id"]]
    assert shown["task"] == listed["ref"]
    assert shown["url"] == listed["url"]


def test_without_a_login_nothing_is_shown(train: Train, browser: Callable[[str | None], Browser]) -> None:
    training = train("once_deferred")
    anonymous = browser(None)

    for path in (*OF_A_JOB, "trainings", "jobs"):
        assert anonymous.get(f"api/{path}", ref_of(training)).status_code == 401, path
    assert anonymous.cancel(ref_of(training)).status_code == 401
    training.end()


def test_a_user_without_access_to_the_dag_does_not_see_its_job(
    train: Train, browser: Callable[[str | None], Browser], admin: Browser
) -> None:
    training = train("once_deferred", script=WAIT)
    ref = ref_of(training)
    job = wait_for_status(admin, ref, "RUNNING")["job"]["job_id"]
    stranger = browser("stranger")
    by_connection = {"conn_id": "training_default", "job_id": job}
    hidden = [("dag_id", "mapped"), *ref.items()]

    for path in OF_A_JOB:
        for named in (ref, by_connection):
            assert stranger.get(f"api/{path}", named).status_code == 403, path
        assert stranger.get(f"api/{path}", hidden).status_code == 422, "of two Dags, neither is taken"
    assert stranger.cancel(ref).status_code == 403
    assert stranger.cancel(by_connection).status_code == 403
    assert stranger.get("api/trainings", {"dag_id": "once_deferred"}).status_code == 403
    assert stranger.get("api/trainings", {"ti": json.dumps({**ref, "map_index": -1})}).status_code == 403
    listed = stranger.read("jobs", conn_id="training_default")
    assert job not in json.dumps(listed)
    assert listed["left_out"] >= 1
    training.go_on()
    training.end()


def test_a_viewer_sees_the_job_and_cannot_cancel_it(train: Train, browser: Callable[[str | None], Browser]) -> None:
    training = train("once_deferred", script=WAIT)
    viewer = browser("viewer")

    seen = wait_for_status(viewer, ref_of(training), "RUNNING")

    assert not seen["may_cancel"]
    assert viewer.cancel(ref_of(training)).status_code == 403
    assert viewer.get("api/jobs", {"conn_id": "training_default"}).status_code == 403
    assert viewer.read("jobs")["connections"] == []
    by_connection = {"conn_id": "training_default", "job_id": seen["job"]["job_id"]}
    assert viewer.get("api/job", by_connection).status_code == 403
    training.go_on()
    training.end()


@pytest.mark.slow
def test_a_user_who_may_edit_the_task_can_cancel_its_job(
    train: Train, browser: Callable[[str | None], Browser]
) -> None:
    training = train("once_deferred", script=WAIT)
    user = browser("user")
    ref = ref_of(training)
    wait_for_status(user, ref, "RUNNING")

    assert user.cancel(ref, Origin="https://elsewhere.example").status_code == 400, "another site's form"
    other = user.cancel({**ref, "expected": job_id("once_deferred", training.run, "train", -1, 2)})
    assert other.status_code == 409, "the job of another try"
    reply = user.cancel({**ref, "expected": job_id("once_deferred", training.run, "train", -1, 1)})

    assert reply.ok, reply.text
    wait_for_status(user, ref, "CANCELED")
    training.end("failed")
    kind, text = training.failure()
    assert kind == "JobCanceled"
    assert "was canceled" in text


@pytest.mark.slow
def test_writing_an_xcom_gives_no_access_to_another_tasks_job(
    train: Train, airflow: LocalAirflow, admin: Browser
) -> None:
    theirs, mine = train("once_deferred", script=WAIT), train("once_deferred")
    job = wait_for_status(admin, ref_of(theirs), "RUNNING")["job"]["job_id"]
    mine.end()
    xcoms = f"/dags/once_deferred/dagRuns/{mine.run}/taskInstances/train/xcomEntries"
    claim = mine.xcom(CLAIM_KEY)

    airflow.api("PATCH", f"{xcoms}/{JOB_ID_KEY}", body={"value": job})
    airflow.api("PATCH", f"{xcoms}/{CLAIM_KEY}", body={"value": {**claim, "job_id": job}})

    assert admin.read("job", **ref_of(mine))["job"] is None
    assert admin.read("log", **ref_of(mine))["records"] == []
    shown = [one for one in admin.read("jobs", conn_id="training_default")["jobs"] if one["job_id"] == job]
    assert [one["task"]["run_id"] for one in shown] == [theirs.run]
    # Its own job, through a path of the job API that leads to another job.
    own = job_id("once_deferred", mine.run, "train", -1, 1)
    airflow.api("PATCH", f"{xcoms}/{JOB_ID_KEY}", body={"value": own})
    airflow.api("PATCH", f"{xcoms}/{CLAIM_KEY}", body={"value": {**claim, "version": "v2/storage?"}})
    assert admin.read("job", **ref_of(mine))["job"] is None
    theirs.go_on()
    theirs.end()


@pytest.mark.slow
def test_the_output_of_a_script_arrives_as_data(train: Train, admin: Browser) -> None:
    harm = "<img src=x onerror=alert(1)>"
    script = f"print({json.dumps(json.dumps({'metrics': {'__proto__': 1, harm: 2}}))})\nprint({harm!r})\n{SAVE}"
    training = train("once_deferred", script=script, env={"HARM": harm})
    training.end()

    reply = admin.get("api/job", ref_of(training))

    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'none'" in reply.headers["Content-Security-Policy"]
    assert reply.json()["metrics"] == {"__proto__": 1, harm: 2}
    assert ["env.HARM", harm] in reply.json()["parameters"]
    assert harm in lines(admin.read("log", **ref_of(training)))


@pytest.mark.slow
def test_an_unavailable_service_leaves_the_data_of_airflow(
    train: Train, proxy: Proxy, browser: Callable[[str | None], Browser], admin: Browser
) -> None:
    training = train("once_deferred", "training_proxy")
    training.end()
    proxy.inject("GET", ".*", answers(503, '{"error": {"code": "503", "message": "Down"}}'), times=10**6)

    seen = admin.read("job", **ref_of(training))

    assert seen["job"]["status"] == "SUCCEEDED"
    assert seen["location"] == training.xcom()
    assert not seen["service"]["reachable"]
    assert "Down" in seen["service"]["message"]
    for path in OF_A_JOB[1:]:
        assert not admin.read(path, **ref_of(training))["service"]["reachable"], path
    assert not admin.read("jobs", conn_id="training_proxy")["service"]["reachable"]
    reply = browser("stranger").get("api/job", ref_of(training))
    assert reply.status_code == 403
    viewed = browser("viewer").read("job", **ref_of(training))["service"]["message"]
    assert viewed.startswith("The training service is unreachable or returned an error [AT-201].")
    assert "://" not in viewed
    proxy.heal()
    wait_for(lambda: admin.read("job", **ref_of(training))["service"]["reachable"], "The service")


@pytest.mark.slow
def test_a_lost_job_is_shown_as_lost(train: Train, proxy: Proxy, admin: Browser) -> None:
    training = train("once_deferred", "training_proxy", script=WAIT)
    ref = ref_of(training)
    wait_for_status(admin, ref, "RUNNING")
    lost = answers(404, '{"error": {"code": "404", "message": "No such job"}}')
    proxy.inject("GET", ".*/jobs/[^/]+(/(metrics|usage|environment|model|logs).*)?", lost, times=10**6)

    seen = wait_for_status(admin, ref, "UNKNOWN")

    assert seen["job"]["message"] == "The training service no longer knows the job."
    assert seen["service"]["reachable"]
    assert not seen["may_cancel"]
    wait_for(lambda: admin.read("log", **ref)["ended"], "The end of the log")
    for path in ("metrics", "usage", "environment", "model"):
        assert admin.read(path, **ref)["supported"], path
    proxy.heal()
    wait_for_status(admin, ref, "RUNNING")
    training.go_on()
    training.end()


@pytest.mark.slow
def test_a_task_without_a_job_says_why(airflow: LocalAirflow, train: Train, admin: Browser) -> None:
    airflow.wait_for_dag("waiting")
    run = airflow.trigger("waiting")
    other = {"dag_id": "waiting", "run_id": run, "task_id": "read_model"}

    assert admin.read("job", **other)["why_no_job"] == "The task read_model is not a training task."
    assert admin.get("api/job", {**other, "task_id": "nothing"}).status_code == 404
    assert admin.get("api/job", {**other, "dag_id": "~"}).status_code == 404
    unreachable = train("once_deferred", "training_no_service")
    assert admin.read("job", **ref_of(unreachable))["why_no_job"] == "The task has not submitted a job yet."
    airflow.api("PATCH", f"/dags/waiting/dagRuns/{run}", body={"state": "failed"})


@pytest.mark.slow
def test_each_mapped_task_has_its_own_job(airflow: LocalAirflow, browser: Callable[[str | None], Browser]) -> None:
    airflow.wait_for_dag("mapped")
    run = airflow.trigger("mapped")
    assert airflow.wait_for_run("mapped", run) == "success"
    stranger = browser("stranger")

    ref = {"dag_id": "mapped", "run_id": run, "task_id": "train"}
    names = [stranger.read("job", **ref, map_index=index)["job"]["name"] for index in range(2)]

    assert names == ["first", "second"]
    listed = [one for one in stranger.read("trainings", dag_id="mapped")["trainings"] if one["ref"]["run_id"] == run]
    assert sorted(one["name"] for one in listed) == names
    assert len({one["label"] for one in listed}) == 2


@pytest.mark.slow
def test_the_training_whose_model_is_served_is_marked(airflow: LocalAirflow, admin: Browser, tmp_path: Path) -> None:
    airflow.wait_for_dag("deployer")

    def deploy(**configuration: Any) -> str:
        run = airflow.trigger("deployer", {"models": str(tmp_path / "models"), **configuration})
        assert airflow.wait_for_run("deployer", run) == "success"
        return run

    def marked() -> set[tuple[str, str]]:
        trainings = admin.read("trainings", dag_id="deployer")["trainings"]
        return {(one["ref"]["run_id"], one["ref"]["task_id"]) for one in trainings if one["deployed"]}

    first = deploy()
    assert marked() == {(first, "train"), (first, "validate")}, "the one that was validated, and what it was made of"
    second = deploy()
    assert marked() == {(second, "train"), (second, "validate")}
    deploy(withdraw=True)
    assert marked() == {(second, "train"), (second, "validate")}, "the third was taken back"


def test_the_pages_load_nothing_from_other_hosts(browser: Callable[[str | None], Browser]) -> None:
    anonymous = browser(None)

    for page in ("job", "compare", "jobs"):
        reply = anonymous.get(page)
        assert reply.headers["Content-Type"].startswith("text/html")
        assert "frame-ancestors 'self'" in reply.headers["Content-Security-Policy"]
        assert "unsafe-eval" not in reply.headers["Content-Security-Policy"]
    assert anonymous.get("static/../training.py").status_code == 404
    assert anonymous.get("static/%2e%2e/training.py").status_code == 404
    assert anonymous.get("nothing").status_code == 404


def test_airflows_ui_has_a_place_for_each_page(airflow: LocalAirflow) -> None:
    (plugin,) = [one for one in airflow.api("GET", "/plugins")["plugins"] if one["name"] == "training"]

    places = {view["destination"]: view["url_route"] for view in plugin["external_views"]}
    assert places == {"task_instance": "training", "dag": "trainings", "nav": "training-jobs"}
    assert airflow.api("GET", "/plugins/importErrors")["import_errors"] == []
