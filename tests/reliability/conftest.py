"""The ledger: what was broken on purpose, and how it ended."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import faults
import pytest

SURVIVED, REFUSED = "survived", "refused"


class Ledger:
    """What became of the faults that one test injects; one that is not written down is lost."""

    def __init__(self) -> None:
        self.entries: list[tuple[str, str]] = []

    def survived(self, kind: str) -> None:
        """The work went on, and ended as if nothing had happened."""
        self.entries.append((kind, SURVIVED))

    def refused(self, kind: str) -> None:
        """One clear line, the documented exit code, and nothing damaged."""
        self.entries.append((kind, REFUSED))


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Ledger:
    """Where a test writes each fault that was borne; a failing test counts as one that was lost."""
    kept = Ledger()
    request.node.user_properties.append(("faults", kept.entries))
    return kept


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    faults.end_all()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print a row for each kind of fault, and a last line: how many were lost."""
    rows: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for report in terminalreporter.stats.get("passed", []):
        for name, entries in report.user_properties:
            for kind, end in entries if name == "faults" else ():
                rows[kind][end] += 1
    lost = [
        report
        for word in ("failed", "error")
        for report in terminalreporter.stats.get(word, [])
        if "/reliability/" in report.nodeid
    ]
    if not rows and not lost:
        return
    line = terminalreporter.write_line
    line(f"{'fault':<40}{'injected':>10}{'survived':>10}{'refused':>10}")
    for kind, ends in sorted(rows.items()):
        line(f"{kind:<40}{ends.total():>10}{ends[SURVIVED]:>10}{ends[REFUSED]:>10}")
    total = sum((ends for ends in rows.values()), Counter())
    line(f"{'all':<40}{total.total():>10}{total[SURVIVED]:>10}{total[REFUSED]:>10}")
    line(f"lost: {len(lost)}")
