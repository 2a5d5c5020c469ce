"""Segmentation as a protocol of a study: models by mask datasets, structures, seeds and films."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ark_framework.corpus import Corpus
from ark_framework.overlap import film_frame, structure_table
from ark_framework.run import write_text
from ark_framework.tensors import load_safetensors
from ark_framework.transfer import pictures, segmenter
from ark_framework.transfer.candidate import Candidate
from ark_framework.transfer.outcome import Outcome, segmented
from ark_framework.transfer.pieces import Pieces
from ark_framework.transfer.protocol import SegmentConfig
from ark_framework.transfer.segment import Segmented, score, segment
from ark_framework.transfer.segmentation import fewer
from ark_framework.transfer.splits import Split
from ark_framework.transfer.structures import Structures, check, choose
from ark_framework.transfer.workfolder import WEIGHTS

SEGMENT = "segment"


def segmentations(
    pieces: Pieces, candidates: Sequence[Candidate], *, mixed: bool
) -> Iterator[Outcome]:
    """Yield every outcome: datasets in order, models in order, then structures and seeds.

    Args:
        pieces: Of the study.
        candidates: Its models; a table of embeddings is passed over.
        mixed: Whether datasets of labels may be named beside those of masks.
    """
    config = pieces.config.segment
    names = pieces.datasets.mask_names(mixed=mixed)
    check(config.structures, names)
    taken = [candidate for candidate in candidates if candidate.vectors is None]
    for candidate in candidates:
        if candidate.vectors is not None:
            pieces.say(f"{candidate.name}: a table of embeddings does not segment")
    for candidate in taken:  # an encoder that cannot is refused before any film is packed
        segmenter.build(candidate, ("any",), size=config.size, width=config.width)
    networks = {
        name: choose(config.structures, name, pieces.datasets.schema(name)) for name in names
    }
    for name in names:
        for candidate in taken:
            film = segmenter.film(candidate, config.size)
            corpus = pieces.datasets.open(name, candidate, film)
            for structures in networks[name]:
                for seed in range(pieces.config.seeds):
                    yield from _seed(pieces, candidate, corpus, structures, seed, film.size)


def _seed(
    pieces: Pieces,
    candidate: Candidate,
    corpus: Corpus,
    structures: Structures,
    seed: int,
    size: int,
) -> Iterator[Outcome]:
    config = pieces.config.segment
    config = config.model_copy(update={"views": config.views.model_copy(update={"size": size})})
    drawn = structures.drawn(corpus.table.drawn())
    for whole in pieces.splits(corpus):
        there = int(drawn[whole.train].any(axis=1).sum())
        if beyond := [count for count in config.films if count >= there]:
            pieces.say(f"{corpus.name}: {beyond[0]} training films are all {there} that there are")
        counts = [count for count in config.films if count < there]
        few = [fewer(corpus, whole, structures, count, seed=seed) for count in counts]
        for split in (*few, whole):
            # Some training films alone: their network is not kept for others.
            keep = config.keep and split is whole
            asked = config.model_copy(update={"keep": keep})
            yield from _Piece(pieces, candidate, corpus, structures, split, asked, seed).outcomes()


class _Piece:
    """One network: trained, scored, drawn, and kept where asked."""

    def __init__(
        self,
        pieces: Pieces,
        candidate: Candidate,
        corpus: Corpus,
        structures: Structures,
        split: Split,
        config: SegmentConfig,
        seed: int,
    ) -> None:
        self.pieces, self.candidate, self.corpus = pieces, candidate, corpus
        self.structures, self.split, self.config, self.seed = structures, split, config, seed
        told = config.model_dump(mode="json", exclude={"structures", "films", "pictures"})
        told |= {"masks": structures.names, "parts": structures.parts}
        rows = [split.train, split.val, split.test]
        self.key = pieces.key(SEGMENT, candidate, corpus, seed, told, rows)
        self.folder = pieces.ledger.path(self.key)

    def outcomes(self) -> list[Outcome]:
        """Return the one outcome, computed or read."""
        found = self.pieces.kept(self.key, self._compute)
        self.pieces.forget(self.folder)  # what it led to is kept
        return found

    def _compute(self) -> list[dict[str, Any]]:
        made = segmenter.build(
            self.candidate,
            self.structures.names,
            size=self.config.size,
            width=self.config.width,
            seed=self.seed,
            say=self.pieces.say,
        )
        done = segment(
            made.network,
            self.corpus,
            self.split,
            self.structures,
            self.config,
            seed=self.seed,
            folder=self.folder,
            runtime=self.pieces.runtime,
            plugins=self.pieces.datasets.registry,
            say=self.pieces.say,
            stop=self.pieces.stop,
        )
        found = self._judged(done)
        if self.config.keep and self.pieces.runtime.ranks.first:
            kept = self.pieces.out / "models" / Path(found.predictions).stem
            tensors = load_safetensors(self.folder / WEIGHTS)
            segmenter.save(kept, made, tensors)
            self.pieces.say(f"network: {kept}")
        return [found.to_json()]

    def _judged(self, done: Segmented) -> Outcome:
        """Score masks; keep each film's scores, intervals, and pictures of the first seed."""
        rows, names = self.split.test, self.structures.names
        scores = score(done.masks, self.corpus, rows, self.structures)
        drawn = self.structures.drawn(self.corpus.table.drawn()[self.split.train])
        setting: dict[str, Any] = {"seed": self.seed, "split": self.split.name}
        setting |= {"films": int(drawn.any(axis=1).sum())}
        setting["unit"] = "pixels" if self.corpus.spacing(rows) is None else "mm"
        setting |= {"epoch": done.best_epoch, "steps": done.steps}
        table = structure_table(scores, names, self.corpus.table.groups()[rows])
        found = segmented(
            scores,
            names,
            model=self.candidate.name,
            dataset="/".join(each for each in (self.corpus.name, self.structures.title) if each),
            setting=setting,
            trained_on=self.pieces.answer(self.candidate, self.corpus).of(rows).counts(),
            intervals=table,
        )
        frame = film_frame(self.corpus.table.frame.iloc[rows], scores, names)
        found = self.pieces.with_predictions(found, self.key, frame)
        if not self.pieces.runtime.ranks.first:
            return found
        path = self.pieces.out / "intervals" / found.predictions
        path.parent.mkdir(exist_ok=True)
        write_text(path, table.to_csv(index=False))
        count = self.pieces.config.segment.pictures
        if self.seed == 0 and count:
            name = Path(found.predictions).with_suffix(".png").name
            path = self.pieces.out / "pictures" / name
            pictures.write(path, self.corpus, rows, self.structures, done.masks, scores, count)
        return found
