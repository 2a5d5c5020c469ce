"""The datasets of a comparison, opened as each model sees films."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ark_framework import registry as plugins
from ark_framework.blueprint import Preprocessing
from ark_framework.config import RunConfig
from ark_framework.corpus import Corpus, Progress, open_corpus, options_of
from ark_framework.errors import ConfigError
from ark_framework.plan import choose_tasks, named
from ark_framework.ranks import SINGLE, Ranks
from ark_framework.registry import Registry
from ark_framework.roots import check_names
from ark_framework.specs import LabelSchema
from ark_framework.text import counted
from ark_framework.transfer.candidate import Candidate


@dataclass(kw_only=True)
class Datasets:
    """The datasets of the named plugins.

    Attributes:
        config: Plugins, options, validation split and store folder; its store's side is the
            models' own, and serves where there is only a table of embeddings.
        roots: Over those of the configuration.
    """

    config: RunConfig
    roots: Mapping[str, Path] = field(default_factory=dict)
    progress: Progress | None = None
    say: Callable[[str], None] = lambda _: None
    ranks: Ranks = SINGLE
    registry: Registry = field(init=False)
    _open: dict[tuple[str, int, str], Corpus] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        if not self.config.plugins:
            raise ConfigError("name the plugins whose datasets you mean: --plugins NAME...")
        self.registry = plugins.load(self.config.plugins, data=self.config.data)
        check_names(self.roots, self.registry.datasets)

    def names(self, *, mixed: bool = False) -> tuple[str, ...]:
        """Return the chosen datasets, or every one that has labels.

        Args:
            mixed: Whether datasets of masks may be named, too: they are left out.

        Raises:
            ConfigError: an unknown one, one of masks, or none at all.
        """
        config = self.config
        if mixed and config.tasks is not None:
            tasks = tuple(each for each in config.tasks if not self._masks(each.dataset))
            config = config.model_copy(update={"tasks": tasks})
        tasks = choose_tasks(config, self.registry, roots=self.roots)
        return tuple(dict.fromkeys(task.dataset for task in tasks))

    def mask_names(self, *, mixed: bool = False) -> tuple[str, ...]:
        """Return the chosen datasets, or every one that has masks.

        Args:
            mixed: Whether datasets of labels may be named, too: they are left out.

        Raises:
            ConfigError: an unknown one, one of labels, or none at all.
        """
        chosen = [task.dataset for task in self.config.tasks or ()]
        every = [name for name in chosen or named(self.config, self.registry) if self._masks(name)]
        other = [name for name in chosen if name not in every]
        if other and not mixed:
            raise ConfigError(f"{other[0]} has labels and no masks; leave it out of --tasks")
        if not every:
            raise ConfigError("nothing to segment: the named plugins have no datasets of masks")
        return tuple(dict.fromkeys(every))

    def schema(self, name: str) -> LabelSchema:
        """Return a dataset's labels without reading its table."""
        spec = self.registry.dataset(name)
        options = None
        if callable(spec.schema):
            options = options_of(spec, self.config, roots=self.roots)
        return self.registry.schema_of(spec, options)

    def _masks(self, name: str) -> bool:
        return self.schema(name).kind == "mask"

    def open(self, name: str, candidate: Candidate, film: Preprocessing | None = None) -> Corpus:
        """Open a dataset, packed as the candidate sees films, or as ``film`` says.

        It is packed once for each side.
        """
        store = self.config.store
        size, fit = store.size, store.fit
        if film is not None:
            size, fit = film.resize, film.fit
        elif candidate.blueprint is not None:
            size, fit = candidate.film.resize, candidate.film.fit
        elif opened := [corpus for (known, *_), corpus in self._open.items() if known == name]:
            return opened[0]  # a table needs no films of its own
        if (name, size, fit) not in self._open:
            changed = store.model_copy(update={"size": size, "fit": fit})
            config = self.config.model_copy(update={"store": changed})
            with self.ranks.first_alone():  # it packs, the others find it packed
                corpus = open_corpus(
                    self.registry.dataset(name),
                    self.registry,
                    config,
                    roots=self.roots,
                    progress=self.progress,
                )
            self._tell(corpus)
            self._open[name, size, fit] = corpus
        return self._open[name, size, fit]

    def _tell(self, corpus: Corpus) -> None:
        if corpus.made_validation:
            self.say(
                f"{corpus.name}: no validation split of its own; {corpus.made_validation} training "
                "films were set aside, by patient"
            )
        if corpus.store.bad:
            self.say(
                f"{corpus.name}: left out: {counted(len(corpus.store.bad), 'unreadable film')}"
            )


def digest(corpus: Corpus, *rows: np.ndarray) -> str:
    """Return 16 hexadecimal digits that name a corpus's labels, patients and these rows of it."""
    frame = corpus.table.frame
    seen = frame[["image", "patient", *corpus.schema.labels]]
    made = hashlib.sha256(pd.util.hash_pandas_object(seen, index=False).to_numpy().tobytes())
    made.update(repr((corpus.schema.labels, corpus.schema.uncertain, corpus.schema.blank)).encode())
    for each in rows:
        made.update(np.asarray(each, dtype=np.int64).tobytes() + b"|")
    return made.hexdigest()[:16]
