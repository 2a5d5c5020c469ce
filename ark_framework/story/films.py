"""The test films that a run's teacher is least and most certain of, as small images in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ark_framework.errors import ArkError
from ark_framework.store import Store, default_folder, open_store
from ark_framework.story.links import Links
from ark_framework.story.parts import Part, Picture, Pictures, Section, Text
from ark_framework.story.runs import Run
from ark_framework.story.scores import Films, films

COUNT, SIDE, TOP = 4, 192, 3  # films of either kind, their side, and the labels that are named
MODEL = "teacher"
OTHERS = "No films are shown; --films shows those of datasets whose terms allow it."


def examples(runs: Sequence[Run], links: Links, *, films: bool) -> Section:
    """Return the least and the most certain test films of each task, or why there are none."""
    parts: list[Part] = []
    if not films:
        parts = [Text(text=OTHERS, tone="lacking")]
    else:
        parts = [part for run in runs for part in _of_run(run, links)]
        parts = parts or [Text(text="No test predictions to choose films by.", tone="lacking")]
    return Section(name="films", title="Least and most certain films", parts=parts)


def certainty(scores: np.ndarray, kind: str) -> np.ndarray:
    """Return how certain each film's answers are, ``(n,)``: 1 minus their mean entropy.

    Args:
        scores: Probabilities ``(n, C)``.
        kind: ``multiclass`` answers are one distribution, others one for each label.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = -scores * np.log2(np.clip(scores, 1e-12, 1))
        if kind == "multiclass":
            return np.asarray(1 - parts.sum(axis=1) / np.log2(scores.shape[1]))
        rest = 1 - scores
        parts = parts - rest * np.log2(np.clip(rest, 1e-12, 1))
    return np.asarray(1 - parts.mean(axis=1))


def _of_run(run: Run, links: Links) -> Iterator[Part]:
    for task in run.plan["tasks"]:
        name, read = task["dataset"], films(run, task)
        probabilities = None if read is None else read.scores(MODEL)
        if read is None or probabilities is None:
            continue
        if run.datasets.get(name, {}).get("access", "credentialed") == "credentialed":
            text = f"{task['name']}: no film of {name} is shown, for none may be passed on."
            yield Text(text=text, tone="lacking")
            continue
        store = _store(run, name, task["store"])
        if store is None:
            text = f"{task['name']}: no film is shown, for its packed films are no longer here."
            yield Text(text=text, tone="lacking")
            continue
        yield from _chosen(run, read, probabilities, store, links)


def _store(run: Run, dataset: str, fingerprint: str) -> Store | None:
    """Return the packed films of a dataset, if they are where the run found them."""
    folder = run.config["store"].get("folder")
    path = (Path(folder) if folder else default_folder()) / f"{dataset}-{fingerprint}"
    try:
        return open_store(path)
    except (ArkError, OSError):
        return None


def _chosen(
    run: Run, read: Films, scores: np.ndarray, store: Store, links: Links
) -> Iterator[Part]:
    rows = store.rows(read.frame["image"].tolist())
    known = np.flatnonzero(rows >= 0)
    order = known[np.argsort(certainty(scores, read.task["kind"])[known], kind="stable")]
    sources = (links.to(run.name, run.path, read.file),)
    for word, chosen in (("least", order[:COUNT]), ("most", order[::-1][:COUNT])):
        pictures = [
            Picture(
                data=_image(store.images[rows[index]]),
                alt=f"A test film of {read.task['dataset']}, one of the {word} certain",
                lines=_said(read, scores, int(index)),
            )
            for index in chosen
        ]
        title = f"{run.name}, {read.task['name']}: {word} certain"
        yield Pictures(title=title, pictures=pictures, sources=sources)


def _said(read: Films, scores: np.ndarray, index: int) -> tuple[str, ...]:
    """Return what is true and what was answered, in two lines."""
    labels = list(read.task["labels"])
    found = [label for label, value in zip(labels, read.targets[index], strict=True) if value == 1]
    top = np.argsort(-scores[index], kind="stable")[:TOP]
    told = ", ".join(f"{labels[c]} {scores[index][c]:.2f}" for c in top)
    return f"labels: {', '.join(found) or 'none'}", f"answer: {told}"


def _image(film: np.ndarray) -> str:
    """Return a stored film ``(C, S, S)`` uint8 as a JPEG without any metadata."""
    pixels = film[0] if len(film) == 1 else film.transpose(1, 2, 0)
    made = Image.fromarray(np.ascontiguousarray(pixels))
    made.thumbnail((SIDE, SIDE))
    buffer = io.BytesIO()
    made.save(buffer, format="JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
