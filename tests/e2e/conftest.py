"""Runs the builds, as many at once as fit, and prints the time of each one's steps at the end."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import Built, Mirror, Site
from ways import WAYS, Outcome

TIMES: dict[str, Built] = {}


@pytest.fixture(scope="session")
def pool() -> Iterator[ThreadPoolExecutor]:
    """An install is mostly one thread's work, so two cores serve two guests."""
    with ThreadPoolExecutor(max_workers=int(os.environ.get("E2E_JOBS", "2"))) as pool:
        yield pool


@pytest.fixture(scope="session")
def runs(request: pytest.FixtureRequest, pool: ThreadPoolExecutor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Future[Outcome]]:
    """Every way that a chosen test asks for, begun at once."""
    wanted = dict.fromkeys(mark.args[0] for item in request.session.items for mark in item.iter_markers("way"))
    results = Path(os.environ["E2E_RESULTS"]) if "E2E_RESULTS" in os.environ else tmp_path_factory.getbasetemp()

    def run(name: str, way: Callable[[Site], Outcome]) -> Outcome:
        place = results / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        mirror = Mirror()
        try:
            site = Site(data=place / "pve", mirror=mirror, results=place)
            site.prepare()
            return way(site)
        finally:
            mirror.shutdown()
            mirror.server_close()

    return {name: pool.submit(run, name, WAYS[name]) for name in wanted}


@pytest.fixture
def outcome(request: pytest.FixtureRequest, runs: dict[str, Future[Outcome]]) -> Outcome:
    """What came of the way that the test is marked with."""
    name = request.node.get_closest_marker("way").args[0]
    outcome = runs[name].result()
    TIMES[name] = outcome.built
    return outcome


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "way(name): the build that the test looks at")
    config.addinivalue_line("markers", "bad: a build that cannot end well")
    config.addinivalue_line("markers", "figures: measures; no part of the tests")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of docs/benchmarks.md."""
    names = list(TIMES)
    if not names:
        return
    rows = list(dict.fromkeys(step for built in TIMES.values() for step, _ in built.steps()))
    terminalreporter.write_line("")
    terminalreporter.write_line(f"| seconds | {' | '.join(names)} |")
    terminalreporter.write_line(f"| --- |{' --- |' * len(names)}")
    for row in rows:
        cells = [f"{dict(TIMES[name].steps()).get(row, 0.0):.1f}" for name in names]
        terminalreporter.write_line(f"| {row} | {' | '.join(cells)} |")
    shares = {name: (TIMES[name].waiting(), TIMES[name].seconds) for name in names if TIMES[name].code == 0}
    cells = [f"{shares[name][0]:.1f} ({shares[name][0] / shares[name][1]:.1%})" if name in shares else "" for name in names]
    terminalreporter.write_line(f"| ours, at most | {' | '.join(cells)} |")
    terminalreporter.write_line(f"| whole | {' | '.join(f'{TIMES[name].seconds:.1f}' for name in names)} |")
