"""From a configuration to a trained model: read → pack → plan → pretrain → test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ark_framework import config as configuration
from ark_framework.config import RunConfig
from ark_framework.corpus import Progress
from ark_framework.errors import ConfigError
from ark_framework.preparation import Prepared, prepare
from ark_framework.run import create, default_name, reopen
from ark_framework.session import RunResult, Session


def train(
    config: RunConfig | Mapping[str, Any],
    *,
    out: Path | str | None = None,
    resume: bool = False,
    init_from: Path | str | None = None,
    roots: Mapping[str, Path] | None = None,
    watching: Sequence[object] = (),
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> RunResult:
    """Pretrain.

    Args:
        config: A configuration, or the mapping that a YAML file would hold.
        out: The run's folder; ``runs/<time>`` when absent.
        resume: Go on with the run in ``out`` from its last checkpoint; ``config`` is then read
            from the folder and the one given is only compared, where it is not empty.
        init_from: A run folder or checkpoint whose weights the student starts from.
        roots: Roots by dataset name, over those of the configuration.
        watching: More observers for this run.
        progress: ``progress(dataset, done, total)`` while films are packed.
        say: Called with one-line notices.

    Raises:
        ArkError: with the exit code of its class; see ``docs/reference/exit-codes.md``.
    """
    say = say or (lambda _: None)
    if not isinstance(config, RunConfig):
        config = configuration.parse(config)
    if resume:
        if out is None:
            raise ConfigError("--resume needs --out, the folder of the run that is to go on")
        folder, config = reopen(Path(out))
    prepared = prepare(config, roots=roots, progress=progress, say=say)
    if not resume:
        folder = create(
            Path(out) if out else Path("runs") / default_name(), config, about=_about(prepared)
        )
        folder.write("plan.json", prepared.plan.to_json())
    return Session(prepared, folder, say=say).run(
        resume=resume, init_from=Path(init_from) if init_from else None, watching=watching
    )


def _about(prepared: Prepared) -> dict[str, Any]:
    return {
        "plugins": [
            {"name": record.name, "distribution": record.distribution, "version": record.version}
            for record in prepared.registry.plugins
        ],
        "data": {
            name: {
                "store": corpus.store.fingerprint,
                "reader": corpus.spec.reader_version,
                "rows": len(corpus.table),
                "access": corpus.spec.card.access,
            }
            for name, corpus in prepared.corpora.items()
        },
        "research_use_only": True,
    }
