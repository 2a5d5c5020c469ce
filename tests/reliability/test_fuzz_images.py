"""Reading films from bytes that were changed at random: ours are the only errors."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import fuzz_images
import pytest

from ark_framework import pixels

QUICK, RUNS = 700, 60_000


def test_changed_films_are_refused_or_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], ledger
) -> None:
    """Hundreds, of every kind; nothing is printed besides."""
    for name in ("MAX_PIXELS", "MAX_SIDE"):
        monkeypatch.setattr(pixels, name, getattr(pixels, name))  # put back at the end
    target, seeds, draw = fuzz_images.Target(tmp_path), fuzz_images.seeds(), Random(9)
    assert len(seeds) > 200
    ends = []
    for number in range(QUICK):
        data = fuzz_images.changed(seeds[number % len(seeds)], seeds, draw)
        (tmp_path / "last").write_bytes(data)  # kept where a codec ends the process
        ends.append(target(data))
    assert capfd.readouterr() == ("", "")
    assert ends.count("read") > QUICK // 20
    for end in ends:
        (ledger.survived if end == "read" else ledger.refused)("film changed at random")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason='atheris is not installed: pip install "ark-framework[fuzz]"',
)
def test_films_that_reach_new_code(tmp_path: Path, ledger) -> None:
    """Changes that reach what none has reached before are changed further."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, data in enumerate(fuzz_images.seeds()):
        (corpus / f"{number:03d}").write_bytes(data)
    options = [f"-runs={RUNS}", "-seed=9", "-timeout=20", "-rss_limit_mb=2048", "-max_len=8192"]
    command = [sys.executable, fuzz_images.__file__, *options, f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(
        [*command, str(corpus)], capture_output=True, text=True, cwd=tmp_path, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS} runs" in done.stderr, done.stderr[-1000:]
    assert not list(tmp_path.glob("crash-*"))
    ledger.survived(f"{RUNS} films changed by what they reach")
