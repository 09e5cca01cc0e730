"""Samples of what a job uses: how they are taken, kept within bounds, and downsampled."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import accumulate, count, pairwise
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_training.api.insights import UsageSample
from airflow_training.service.insights.downsampling import downsample_usage
from airflow_training.service.runners.container.usage import used
from airflow_training.service.runners.process.cgroup import Cgroup
from airflow_training.service.runners.process.memory_and_process_limits import ProcessMeter
from airflow_training.service.runners.ray.frames import FrameReader, FrameWriter
from airflow_training.service.runners.supervisor import usage
from airflow_training.service.runners.supervisor.job_log import JobLog
from airflow_training.service.runners.supervisor.usage import (
    MOST,
    USAGE_FILE,
    GpuMeter,
    Sample,
    Sampler,
    UsageFile,
    Used,
    halved,
    read_usage,
)

MEGABYTE = 1024 * 1024

amounts = st.floats(0, 1000).map(lambda number: round(number, 3))
maybe = st.none() | amounts


def in_order(samples: list[Sample]) -> list[Sample]:
    """Have the time of each be that since the one before."""
    at = accumulate((sample.time for sample in samples), initial=1.8e9)
    next(at)
    return [sample._replace(time=round(time, 3)) for sample, time in zip(samples, at, strict=True)]


series = st.lists(st.builds(Sample, st.floats(0.1, 1000), amounts, amounts, maybe, maybe), max_size=60).map(in_order)


def sample(number: int) -> Sample:
    return Sample(1000.0 + 2 * number, 1.0, float(number))


# The file


def test_what_was_kept_is_read_by_the_next_one_that_goes_on(tmp_path: Path) -> None:
    for number in range(3):
        UsageFile(tmp_path).add(sample(number))
    assert read_usage(tmp_path) == [sample(number) for number in range(3)]


def test_a_repeated_sample_is_kept_once(tmp_path: Path) -> None:
    for number in (0, 1, 2, 1, 2, 3):
        UsageFile(tmp_path).add(sample(number))
    assert read_usage(tmp_path) == [sample(number) for number in range(4)]


def test_a_clock_that_was_set_back_has_samples_at_once(tmp_path: Path) -> None:
    for number in (0, 500, 1000, 400, 401):
        UsageFile(tmp_path).add(sample(number))
    assert read_usage(tmp_path) == [sample(number) for number in (0, 400, 401)]


def test_a_job_of_many_samples_has_a_file_of_few_that_reach_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    file, number = UsageFile(tmp_path), 0
    for number in range(3 * MOST):
        file.add(sample(number))
        if number % 1000 == 0:
            assert len(read_usage(tmp_path)) <= MOST
    kept = read_usage(tmp_path)
    assert MOST // 2 <= len(kept) <= MOST
    assert kept[0].time - sample(0).time < (sample(number).time - sample(0).time) / 500
    assert kept[-1] == sample(number)
    assert {kept_one.cpus for kept_one in kept} == {1.0}
    assert (tmp_path / USAGE_FILE).stat().st_size < 300_000


@settings(deadline=None)
@given(series)
def test_halving_keeps_the_cpu_time_the_greatest_memory_and_the_order(before: list[Sample]) -> None:
    after = halved(before)
    assert len(after) == (len(before) + 1) // 2
    assert all(first.time < second.time for first, second in pairwise(after))
    assert max((one.memory for one in before), default=0) == max((one.memory for one in after), default=0)
    if len(before) > 1:
        assert after[-1].time == before[-1].time
        # Of the first, it is not known how long it stands for: it is taken to be as long as the second does.
        begin = before[0].time - (before[1].time - before[0].time)
        assert cpu_time(after, begin) == pytest.approx(cpu_time(before, begin), abs=0.01 * (before[-1].time - begin))


def cpu_time(samples: list[Sample], begin: float) -> float:
    total = 0.0
    for one in samples:
        total += one.cpus * (one.time - begin)
        begin = one.time
    return total


@pytest.mark.parametrize(
    "broken",
    [
        b"[3000.0, 1.0",
        b"\xff\xfe\x00",
        b"{}",
        b"null",
        b"[]",
        b"[3000.0, 1.0, 2.0]",
        b"[3000.0, NaN, 2.0, null, null]",
        b"[3000.0, 1e999, 2.0, null, null]",
        b"[3000.0, -1, 2.0, null, null]",
        b'["3000", 1, 2.0, null, null]',
        b"[3000.0, true, 2.0, null, null]",
        b"[3000.0, 1, null, null, null]",
        b"[3000.0, 1" + b"0" * 5000 + b", 2.0, null, null]",
        b"[" * 100_000,
        b"[5.0, 1.0, 2.0, null, null]",
        b"x" * (5 * MEGABYTE),
    ],
    ids=lambda broken: repr(broken[:24]),
)
def test_a_broken_line_is_left_out_and_the_file_goes_on(tmp_path: Path, broken: bytes) -> None:
    UsageFile(tmp_path).add(sample(0))
    with (tmp_path / USAGE_FILE).open("ab") as file:
        file.write(broken)
    assert read_usage(tmp_path) == [sample(0)]
    UsageFile(tmp_path).add(sample(1))
    assert read_usage(tmp_path) == [sample(0), sample(1)]


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_content_of_the_file_is_harmless(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("state")
    (folder / USAGE_FILE).write_bytes(content)
    before = read_usage(folder)
    UsageFile(folder).add(Sample(1e14, 1.0, 1.0))
    assert read_usage(folder) == [*before, Sample(1e14, 1.0, 1.0)]


def test_a_file_that_cannot_be_written_is_harmless(tmp_path: Path) -> None:
    (tmp_path / USAGE_FILE).mkdir()
    UsageFile(tmp_path).add(sample(0))
    UsageFile(tmp_path / "gone").add(sample(0))
    assert read_usage(tmp_path) == read_usage(tmp_path / "gone") == []


def test_samples_are_lost_while_the_disk_is_full_and_no_others(tmp_path: Path) -> None:
    file = UsageFile(tmp_path)
    file.add(sample(0))
    with no_file_larger_than((tmp_path / USAGE_FILE).stat().st_size + 10):
        file.add(sample(1))
        file.add(sample(2))
    assert read_usage(tmp_path) == [sample(0)]
    file.add(sample(3))
    assert read_usage(tmp_path) == [sample(0), sample(3)]


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# Downsampling


@settings(deadline=None)
@given(series, st.integers(2, 40))
def test_downsampling_keeps_the_ends_and_the_peaks(samples: list[Sample], points: int) -> None:
    before = [UsageSample(**one._asdict()) for one in samples]
    after = downsample_usage(before, points)
    assert len(after) <= points
    assert [one for one in before if one in after] == after
    if before:
        assert (after[0], after[-1]) == (before[0], before[-1])
    if points >= 6:
        for kind in ("cpus", "memory", "gpus", "gpu_memory"):
            assert peak(after, kind) == peak(before, kind)


def peak(samples: list[UsageSample], kind: str) -> float:
    return max((value for one in samples if (value := getattr(one, kind)) is not None), default=-1)


# Taking them


def test_a_job_of_a_month_is_sampled_often_at_first_and_then_more_and_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[Sample] = []
    now = [0.0]
    monkeypatch.setattr(usage, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0]))
    sampler = Sampler(taken.append, ())
    month = 30 * 24 * 3600
    while now[0] < month:
        sampler.sample_if_due(lambda: Used(now[0] / 2, 5.0))
        now[0] += 1.0
    assert [one.time for one in taken[:10]] == [2.0 * number for number in range(1, 11)]
    assert len(taken) < 20_000
    assert {one.cpus for one in taken} == {0.5}
    assert month - taken[-1].time < 1800


def test_what_cannot_be_measured_is_tried_again_with_the_next_sample() -> None:
    sampler, tries = Sampler(lambda _: None, ()), []

    def fails() -> Used:
        tries.append(1)
        raise OSError

    for _ in range(3):
        with suppress(OSError):
            sampler.sample_if_due(fails)
    assert len(tries) == 1


def test_a_counter_that_restarts_gives_no_negative_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Sample] = []
    ticks = count(0, 3)
    monkeypatch.setattr(usage, "time", SimpleNamespace(monotonic=lambda: next(ticks), time=lambda: 1.0))
    sampler = Sampler(taken.append, ())
    for seconds in (10.0, 16.0, 1.0, 7.0):
        sampler.sample_if_due(lambda seconds=seconds: Used(seconds, 0.0))  # type: ignore[misc]
    sampler.sample_if_due(lambda: None)
    assert [one.cpus for one in taken] == [1.0, 1.0]


def test_processes_without_a_control_group_are_added_up_also_when_one_has_ended() -> None:
    meter = ProcessMeter()
    busy = "held = b'x' * (50 * 1024 * 1024); print('up', flush=True)\nwhile True: pass"
    processes = [subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for process in processes:
            assert process.stdout
            process.stdout.readline()
        looked_at = [psutil.Process(process.pid) for process in processes]
        both = meter.measure(looked_at)
        assert both.memory > 100
        processes[0].kill()
        processes[0].wait()
        one = meter.measure(looked_at)
        assert 50 < one.memory < both.memory
        assert one.cpu_seconds >= both.cpu_seconds
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def test_a_control_group_of_either_version_says_what_it_uses(tmp_path: Path) -> None:
    group: dict[int, dict[str, str]] = {
        1: {
            "cpuacct.usage": "2500000000\n",
            "memory.usage_in_bytes": f"{300 * MEGABYTE}\n",
            "memory.stat": f"inactive_file 1\ntotal_inactive_file {100 * MEGABYTE}\n",
        },
        2: {
            "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\n",
            "memory.current": f"{300 * MEGABYTE}\n",
            "memory.stat": f"anon 1\ninactive_file {100 * MEGABYTE}\n",
        },
    }
    for version, files in group.items():
        folder = tmp_path / str(version)
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
        cgroup = Cgroup(version, {"memory": folder, "cpuacct": folder})
        assert cgroup.used() == Used(2.5, 200.0)
        assert Cgroup(version, {"memory": tmp_path}).used() is None


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({}, 300),
        ({"stats": None}, 300),
        ({"stats": {"inactive_file": 100 * MEGABYTE}}, 200),
        ({"stats": {"inactive_file": 1, "total_inactive_file": 100 * MEGABYTE}}, 200),
        ({"stats": {"inactive_file": 400 * MEGABYTE}}, 0),
    ],
)
def test_the_numbers_of_each_engine_are_understood(files: dict[str, dict[str, int] | None], memory: int) -> None:
    cpu = {"cpu_usage": {"total_usage": 3_000_000_000}}
    assert used({"cpu_stats": cpu, "memory_stats": {"usage": 300 * MEGABYTE, **files}}) == Used(3.0, memory)


def test_samples_of_a_node_of_ray_arrive_and_what_is_none_is_left_out(tmp_path: Path) -> None:
    taken: list[Sample] = []
    lines: list[str] = []
    writer = FrameWriter(lines.append, 1000)
    log = JobLog(tmp_path, limit=1000)
    reader = FrameReader(log, taken.append)
    writer.event(usage=sample(1))
    writer.write(b"out")
    for nonsense in ([], "x", None, [1, 2], [float("inf")] * 5, {"time": 1}):
        writer.event(usage=nonsense)
    writer.event(usage=sample(2))
    reader.write("".join(lines).encode())
    log.close()
    assert taken == [sample(1), sample(2)]
    assert (tmp_path / "log.txt").read_bytes() == b"out"
    assert json.loads(lines[0])["usage"] == list(sample(1))


# Most machines have no GPUs: a fake of NVIDIA's library has some.


class Driver(ModuleType):
    """Two GPUs, one with a number and one with a UUID as its id; `fault` is the function that fails."""

    class NVMLError(Exception):
        """What the library raises."""

    def __init__(self, fault: str = "") -> None:
        super().__init__("pynvml")
        self.fault = fault

    def _try(self, what: str) -> None:
        if self.fault == what:
            raise self.NVMLError(what)

    def nvmlInit(self) -> None:  # noqa: N802 - NVIDIA's name, as those below
        self._try("init")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        self._try("handle")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        return {"GPU-b": 1}[uuid]

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802
        self._try("read")
        return SimpleNamespace(gpu=(100, 25)[handle])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=(1000, 500)[handle] * MEGABYTE)


def test_gpus_of_the_job_are_added_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    assert GpuMeter(["0", "GPU-b"]).read() == (1.25, 1500)
    assert GpuMeter(["GPU-b"]).read() == (0.25, 500)


@pytest.mark.parametrize("fault", ["init", "handle", "read"])
def test_a_driver_that_fails_leaves_the_rest_of_the_sample(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver(fault))
    meter = GpuMeter(["0"])
    assert [meter.read(), meter.read()] == [(None, None)] * 2


def test_a_machine_without_driver_or_library_has_no_gpu_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    assert GpuMeter(["0"]).read() == (None, None)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert GpuMeter(["0"]).read() == (None, None)


def test_a_job_without_gpus_does_not_load_the_library() -> None:
    program = "import sys; from airflow_training.service.runners.supervisor.usage import GpuMeter as M; M([]).read()"
    subprocess.run([sys.executable, "-c", f"{program}; sys.exit('pynvml' in sys.modules)"], check=True)
