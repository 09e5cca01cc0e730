"""The curves of a job's metrics, as the service stores and returns them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_training.service.insights.curve_file import CurveFile, NewPoint
from airflow_training.service.insights.curves import read_curves
from airflow_training.service.runners.supervisor.job_log import JobLog
from tests.patience import wait_for
from tests.service.support import RunningService, Tenant

KERAS = """Epoch {0}/3
1/9 - 1s - loss: 9.0\r9/9 - 1s - 2ms/step - loss: 0.{0} - accuracy: 0.5
"""
REPORTS_UNTIL_STOPPED = """python3 -c '
import json, pathlib, time
step = 0
while not pathlib.Path("go").exists():
    step += 1
    print(json.dumps({"metrics": {"loss": 1 / step}, "step": step}), flush=True)
    time.sleep(0.02)
'"""
MANY = """python3 -c '
for step in range(100_000):
    print("{\\"metrics\\": {\\"loss\\": %r}, \\"step\\": %d}" % (-1.0 if step == 77_777 else 1 / (step + 1), step))
'"""


def curves_of(folder: Path, points: int = 1000) -> dict[tuple[str, str], list[tuple[float, float]]]:
    curves = read_curves([folder / "metrics.ndjson"], points).curves
    return {(curve.name, curve.unit): [(point.step, point.value) for point in curve.points] for curve in curves}


def log_of(folder: Path, *outputs: str | bytes) -> JobLog:
    log = JobLog(folder, limit=10**9)
    for output in outputs:
        log.write(output.encode() if isinstance(output, str) else output)
    return log


def test_a_curve_grows_while_its_job_runs_and_outlives_a_restart(
    own_service: RunningService, own_tenant: Tenant
) -> None:
    job_id = own_tenant.submit(REPORTS_UNTIL_STOPPED)
    own_tenant.wait(job_id, "RUNNING")

    def seen() -> int:
        return int(own_tenant.curves(job_id).get("loss", {"total": 0})["total"])

    first = wait_for(seen, "the first value")
    wait_for(lambda: seen() > first, "the next value")
    before = own_tenant.curves(job_id)["loss"]
    own_service.process.kill()
    own_service.start()
    assert own_tenant.curves(job_id)["loss"]["points"][: before["total"]] == before["points"]
    grown = seen()
    wait_for(lambda: seen() > grown, "a value after the restart")
    (own_tenant.work(job_id) / "go").touch()
    own_tenant.wait(job_id)
    curve = own_tenant.curves(job_id)["loss"]
    assert (curve["unit"], [point[1:] for point in curve["points"]]) == (
        "step",
        [[step, 1 / step] for step in range(1, curve["total"] + 1)],
    )


def test_a_hundred_thousand_points_are_downsampled(tenant: Tenant) -> None:
    job_id = tenant.submit(MANY)
    tenant.wait(job_id)
    curve = tenant.curves(job_id)["loss"]
    assert curve["total"] == 100_000
    assert len(curve["points"]) <= 1000
    assert [point[1] for point in (curve["points"][0], curve["points"][-1])] == [0, 99_999]
    assert [77_777, -1] in [point[1:] for point in curve["points"]], "no dip is lost"
    assert len(tenant.curves(job_id, points=2)["loss"]["points"]) == 2


def test_curves_of_another_tenant_are_not_visible(new_tenant: Callable[[], Tenant]) -> None:
    tenant, other = new_tenant(), new_tenant()
    job_id = tenant.submit("""echo '{"metrics": {"loss": 1}}'""")
    tenant.wait(job_id)
    assert tenant.curves(job_id)["loss"]["total"] == 1
    reply = other.http.get(f"jobs/{job_id}/metrics")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "404")


@pytest.mark.parametrize("points", ["1", "10001", "many", "-5"])
def test_a_wrong_number_of_points_is_refused(tenant: Tenant, points: str) -> None:
    job_id = tenant.submit("true")
    reply = tenant.http.get(f"jobs/{job_id}/metrics", params={"points": points})
    assert reply.status_code == 422
    assert "points" in reply.json()["error"]["message"]


def test_a_job_that_reports_nothing_has_no_curves_and_no_file(tenant: Tenant) -> None:
    job_id = tenant.submit("echo hello")
    tenant.wait(job_id)
    assert tenant.http.get(f"jobs/{job_id}/metrics").json() == {"curves": []}
    assert not (tenant.service.files.job_state(tenant.name, job_id) / "metrics.ndjson").exists()


def test_another_attempt_goes_on_with_the_curve(tenant: Tenant) -> None:
    attempts = """
        say() { echo "{\\"metrics\\": {\\"loss\\": $1}, \\"epoch\\": $2}"; }
        if test -e before; then say 0.2 2; say 0.1 3; else touch before; say 0.9 1; say 0.8 2; exit 1; fi
    """
    job_id = tenant.submit(attempts, retries=1)
    tenant.wait(job_id)
    curve = tenant.curves(job_id)["loss"]
    assert [point[1:] for point in curve["points"]] == [[1, 0.9], [2, 0.2], [3, 0.1]]
    assert curve["total"] == 4


def test_keras_output_has_a_point_per_epoch_and_none_for_the_final_evaluation(tmp_path: Path) -> None:
    epochs = "".join(KERAS.format(epoch) for epoch in (1, 2, 3))
    log_of(tmp_path, epochs, "9/9 - 0s - 2ms/step - loss: 0.7 - accuracy: 0.6\n").close()
    assert curves_of(tmp_path) == {
        ("loss", "epoch"): [(1, 0.1), (2, 0.2), (3, 0.3)],
        ("accuracy", "epoch"): [(1, 0.5), (2, 0.5), (3, 0.5)],
    }


def test_the_last_state_of_a_long_colored_progress_bar_is_read(tmp_path: Path) -> None:
    states = "\r".join(f"\x1b[1m{step}/2000\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m 1s" for step in range(1, 2000))
    last = "\r\x1b[1m2000/2000\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m\x1b[37m\x1b[0m \x1b[1m9s\x1b[0m 3ms/step"
    bar = f"Epoch 7/9\n{states}{last} - loss: 0.25\n".encode()
    assert len(bar) > 100_000
    log_of(tmp_path, *(bar[begin : begin + 1000] for begin in range(0, len(bar), 1000))).close()
    assert curves_of(tmp_path) == {("loss", "epoch"): [(7, 0.25)]}


@pytest.mark.parametrize(
    "name", ["__proto__", "constructor", "<script>alert(1)</script>", "x" * 100, "日本", '"', "\\"]
)
def test_any_printable_text_is_a_name(tmp_path: Path, name: str) -> None:
    log_of(tmp_path, json.dumps({"metrics": {name: 1}}) + "\n").close()
    assert curves_of(tmp_path) == {(name, "value"): [(1, 1)]}


@pytest.mark.parametrize("name", ["", "x" * 101, "\0", "a\nb", "\ud800", "\x1b[1m", "\u202e"])
def test_unprintable_text_is_no_name(tmp_path: Path, name: str) -> None:
    log_of(tmp_path, json.dumps({"metrics": {name: 1}}) + "\n").close()
    assert curves_of(tmp_path) == {}


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400, "true", '"1"', "null", "[1]", "{}"])
def test_a_value_that_is_not_finite_is_no_point(tmp_path: Path, value: str) -> None:
    log_of(tmp_path, f'{{"metrics": {{"loss": {value}, "accuracy": 1}}, "step": 3}}\n').close()
    assert curves_of(tmp_path) == {("accuracy", "step"): [(3, 1)]}


@pytest.mark.parametrize("step", ["NaN", "Infinity", "1" + "0" * 400, "true", '"1"', "null", "[1]", "1" * 5000])
def test_a_step_that_is_not_finite_is_ignored(tmp_path: Path, step: str) -> None:
    log_of(tmp_path, '{"metrics": {"loss": 5}}\n', f'{{"metrics": {{"loss": 4}}, "step": {step}}}\n').close()
    # Python refuses a number with more digits, so that the line is not JSON.
    expected = [(1, 5)] if len(step) > 4300 else [(1, 5), (2, 4)]
    assert curves_of(tmp_path) == {("loss", "value"): expected}


def test_metrics_of_one_line_share_its_step_and_the_step_takes_precedence_over_the_epoch(tmp_path: Path) -> None:
    log_of(tmp_path, '{"metrics": {"a": 1, "b": 2}, "step": -2.5, "epoch": 1}\n').close()
    assert curves_of(tmp_path) == {("a", "step"): [(-2.5, 1)], ("b", "step"): [(-2.5, 2)]}


def test_a_value_without_a_step_is_no_point_of_a_curve_with_steps(tmp_path: Path) -> None:
    log_of(tmp_path, '{"metrics": {"a": 1}, "epoch": 1}\n{"metrics": {"a": 0.5, "rows": 7}}\n').close()
    assert curves_of(tmp_path) == {("a", "epoch"): [(1, 1)], ("rows", "value"): [(1, 7)]}


def test_a_last_line_without_its_end_counts(tmp_path: Path) -> None:
    log = log_of(tmp_path, '{"metrics": {"a": 1}}')
    assert curves_of(tmp_path) == {}
    log.emit("It failed")
    log.write(b'{"metrics": {"a": 2}}')
    log.close()
    assert curves_of(tmp_path) == {("a", "value"): [(1, 1), (2, 2)]}


def test_a_curve_goes_on_beyond_the_limit_of_the_log(tmp_path: Path) -> None:
    log = JobLog(tmp_path, limit=1000)
    for step in range(1, 101):
        log.write(b'{"metrics": {"a": 1}, "step": %d}\n' % step)
    log.close()
    assert len(curves_of(tmp_path)["a", "step"]) == 100


def test_a_writer_that_was_killed_is_followed_by_one_that_knows_the_epoch(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    first = log_of(tmp_path / "first", KERAS.format(1), "Epoch 2/3\n9/9 - 1s - 2ms/st")
    after = shutil.copytree(tmp_path / "first", tmp_path / "second")
    first.close()
    with (after / "metrics.ndjson").open("ab") as file:
        file.write(b"[0,2,1.0")
    log_of(after, "ep - loss: 0.2\n").close()
    assert curves_of(after)["loss", "epoch"] == [(1, 0.1), (2, 0.2)]


def test_a_file_that_cannot_be_written_costs_only_points(tmp_path: Path) -> None:
    log = log_of(tmp_path)
    (tmp_path / "metrics.ndjson").mkdir()
    log.write(b'{"metrics": {"a": 1}}\n')
    (tmp_path / "metrics.ndjson").rmdir()
    log.write(b'{"metrics": {"a": 2}}\n')
    log.close()
    assert (tmp_path / "log.txt").read_bytes() == b'{"metrics": {"a": 1}}\n{"metrics": {"a": 2}}\n'
    assert curves_of(tmp_path) == {("a", "value"): [(1, 2)]}


def test_a_pipe_in_place_of_the_curve_file_blocks_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "metrics.ndjson")
    log_of(tmp_path, '{"metrics": {"a": 1}}\n').close()
    assert curves_of(tmp_path) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\n",
        b"[1,2]\n",
        b"{}\n",
        b"[]\n",
        b"[9,1,1,1,1,1]\n",
        b"null\n",
        bytes(50),
    ],
)
def test_a_damaged_file_is_rewritten(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.ndjson").write_bytes(content)
    assert curves_of(tmp_path) == {}
    log_of(tmp_path, '{"metrics": {"a": 1}}\n').close()
    assert curves_of(tmp_path) == {("a", "value"): [(1, 1)]}


def test_a_text_in_place_of_a_step_is_no_point(tmp_path: Path) -> None:
    (tmp_path / "metrics.ndjson").write_bytes(b'{"name":"a","unit":"step"}\n[0,1,1,"x",1,1]\n[0,2,1,2,1,1]\n')
    assert curves_of(tmp_path) == {}


def test_the_file_of_a_job_that_reports_for_days_stays_bounded(tmp_path: Path) -> None:
    file = CurveFile(tmp_path / "metrics.ndjson", max_points=1000)
    file.add([NewPoint("rare", "epoch", 1, 5.0)], 0.0, 0)
    for step in range(50_000):
        file.add([NewPoint("loss", "step", step, float(step))], 0.0, step)
    file.add([NewPoint("rare", "epoch", 2, 4.0)], 0.0, 0)
    file.close()
    points = curves_of(tmp_path)
    assert len((tmp_path / "metrics.ndjson").read_bytes().splitlines()) <= 1010
    assert points["rare", "epoch"] == [(1, 5), (2, 4)]
    steps = [step for step, _ in points["loss", "step"]]
    assert (steps[0], steps[-1]) == (0, 49_999)
    assert len(steps) >= 400
    again = CurveFile(tmp_path / "metrics.ndjson", max_points=1000)
    again.add([NewPoint("loss", "step", 50_000, 1.0)], 0.0, 0)
    again.close()
    assert next(c for c in read_curves([tmp_path / "metrics.ndjson"], 10).curves if c.name == "loss").total == 50_001


def test_only_the_first_two_hundred_metrics_have_curves(tmp_path: Path) -> None:
    log_of(tmp_path, *(f'{{"metrics": {{"m{number:04}": 1}}}}\n' for number in range(1000))).close()
    assert list(curves_of(tmp_path)) == [(f"m{number:04}", "value") for number in range(200)]
