"""From a configuration to a trained model: read → pack → plan → pretrain → test."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from ark_framework import config as configuration
from ark_framework import exposure
from ark_framework.config import RunConfig
from ark_framework.corpus import Corpus, Progress, options_of
from ark_framework.errors import ConfigError
from ark_framework.exposure import Exposure
from ark_framework.leaks import LeakRecord
from ark_framework.plan import RESIDUAL_WARNING
from ark_framework.preparation import Prepared, exposure_of, prepare
from ark_framework.ranks import Ranks, open_ranks
from ark_framework.run import RunFolder, create, default_name, refuse_used, reopen, unfinished
from ark_framework.runtime import Runtime, open_runtime
from ark_framework.session import RunResult, Session
from ark_framework.specs import DatasetCard


def train(
    config: RunConfig | Mapping[str, Any] | None = None,
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
        config: A configuration, or the mapping that a YAML file would hold; not needed to resume.
        out: The run's folder; ``runs/<time>`` when absent.  An unfinished run of the same
            configuration that lies there goes on from its last checkpoint.
        resume: There must be a run in ``out``; it goes on with the configuration kept there, and
            another one, where given, is refused.
        init_from: A run folder or checkpoint whose weights the student starts from.
        roots: Roots by dataset name, over those of the configuration.
        watching: More observers for this run.
        progress: ``progress(dataset, done, total)`` while films are packed.
        say: Called with one-line notices.

    Raises:
        ArkError: with the exit code of its class; see ``docs/reference/exit-codes.md``.
    """
    ranks = open_ranks()
    say = say if say and ranks.first else (lambda _: None)
    asked = None if config is None else _parsed(config)
    start = Path(init_from).absolute() if init_from else None
    folder, config = _found(asked, out, resume=resume)
    config = _with_roots(config, roots or {})
    with ExitStack() as held:
        if folder is not None:
            start = _reopened(folder, ranks, held, start, resume=resume)
            if not resume:
                say(f"{folder.path} holds this very run, unfinished: it goes on")
        runtime = open_runtime(config.runtime)
        with ranks.first_alone():  # the first rank packs, the others find it packed
            prepared = prepare(
                config,
                roots=roots,
                progress=progress if ranks.first else None,
                say=say,
                begun=LeakRecord.from_json(folder.read("leaks.json")) if folder else None,
            )
        goes_on = folder is not None
        if folder is not None:
            # As JSON keeps it: a tuple is a list there.
            plan = json.loads(json.dumps(prepared.plan.to_json()))
            _same(folder.read("plan.json"), plan, folder.path)
        else:
            folder = _begun(prepared, runtime, out, held, init_from=start)
            if prepared.plan.residual > RESIDUAL_WARNING:
                say(prepared.plan.remains())
        return Session(
            prepared,
            folder,
            say=say,
            runtime=runtime,
            remember=partial(_remember, folder, prepared, earlier=_earlier(start, config)),
        ).run(resume=goes_on, init_from=start, watching=watching)


def _found(
    config: RunConfig | None, out: Path | str | None, *, resume: bool
) -> tuple[RunFolder | None, RunConfig]:
    """Return the run that is to go on, ``None`` where one begins, and the configuration."""
    if resume and out is None:
        raise ConfigError("--resume needs --out, the folder of the run that is to go on")
    if out is not None and (resume or (config is not None and unfinished(Path(out)))):
        folder, kept = reopen(Path(out))
        if config is not None:
            _same(_settings(kept), _settings(config), folder.path)
        return folder, config or kept
    if config is None:
        raise ConfigError("nothing to train: give a configuration with plugins")
    if out is not None:
        refuse_used(Path(out))  # before films are packed
    return None, config


def _reopened(
    folder: RunFolder, ranks: Ranks, held: ExitStack, start: Path | None, *, resume: bool
) -> Path | None:
    """Keep others from a run that is to go on; return the weights that it began with."""
    told = folder.read("run.json").get("init_from")
    if start is not None or not resume:  # a bare --resume need not say it again
        _same({"init_from": told}, {"init_from": str(start) if start else None}, folder.path)
    with ranks.first_alone():
        if ranks.first:
            held.enter_context(folder.held())
    return Path(told) if told else None


def _begun(
    prepared: Prepared,
    runtime: Runtime,
    out: Path | str | None,
    held: ExitStack,
    *,
    init_from: Path | None,
) -> RunFolder:
    """Make the folder of a new run, the same for all ranks, with all that the run will obey."""
    ranks = runtime.ranks
    ranks.wait()  # no folder is made for a run that a rank cannot take part in
    folder = RunFolder(path=Path(ranks.tell(str(out or Path("runs") / default_name()))))
    with ranks.first_alone():
        if ranks.first:
            start = str(init_from) if init_from else None
            about = {"init_from": start, "device": runtime.hardware(), **_about(prepared)}
            create(folder.path, prepared.config, about=about, held=held)
            folder.write("leaks.json", prepared.leaks.to_json())
            folder.write("plan.json", prepared.plan.to_json())  # last: it vouches for the rest
    return folder


def _earlier(init_from: Path | None, config: RunConfig) -> Exposure | None:
    """Return what the weights that a run starts from were trained on; ``None`` for new ones."""
    if init_from is not None:
        return exposure.load(init_from if init_from.is_dir() else init_from.parent.parent)
    if config.model.init not in ("random", "pretrained"):
        return Exposure()  # weights from a file: not known
    return None


def _remember(folder: RunFolder, prepared: Prepared, *, earlier: Exposure | None) -> None:
    """Write what is trained on, unless it is written already."""
    file = folder.path / exposure.FILE
    if not file.exists():
        trained = exposure_of(prepared)
        (trained if earlier is None else trained.with_earlier(earlier)).save(file)


def _parsed(config: RunConfig | Mapping[str, Any]) -> RunConfig:
    return config if isinstance(config, RunConfig) else configuration.parse(config)


def _with_roots(config: RunConfig, roots: Mapping[str, Path]) -> RunConfig:
    """Keep the roots that were given for this run with it, so that it can go on without them."""
    given = {name: {"root": str(Path(path).absolute())} for name, path in roots.items()}
    return config.model_copy(update={"data": configuration.merge(config.data, given)})


def _settings(config: RunConfig) -> dict[str, Any]:
    """Return a configuration without the places where data lie, which may move."""
    values = config.model_dump(mode="json")
    for name in ("folder", "resident"):  # neither changes what is trained on
        values["store"].pop(name)
    values["optim"].pop("max_bad_steps")  # a run that it stopped may go on with more
    for options in values["data"].values():
        options.pop("root", None)
    values["data"] = {name: options for name, options in values["data"].items() if options}
    return values


def _same(kept: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with a run that has become another one.

    Raises:
        ConfigError: naming the first value that differs.
    """
    if (where := _difference(kept, now)) is not None:
        key, old, new = where
        raise ConfigError(
            f"{key} was {old} when {folder} began and is {new} now; give the same settings and "
            "data to go on with it, or begin another run with another --out"
        )


def _difference(old: Any, new: Any, key: str = "") -> tuple[str, str, str] | None:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for name in (*old, *(set(new) - set(old))):
            below = f"{key}.{name}" if key else str(name)
            if (found := _difference(old.get(name), new.get(name), below)) is not None:
                return found
        return None
    return None if old == new else (key, _short(old), _short(new))


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _options(corpus: Corpus, prepared: Prepared) -> dict[str, Any]:
    values: dict[str, Any] = options_of(corpus.spec, prepared.config, roots={}).model_dump(
        mode="json", exclude={"root"}
    )
    return values


def _terms(card: DatasetCard) -> dict[str, str]:
    """Return what a report says of a dataset where its plugin is not installed."""
    names = ("access", "title", "home", "licence", "citation")
    return {name: getattr(card, name) for name in names}


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
                **_terms(corpus.spec.card),
                # How the labels of predictions are read for scores.
                "blank": corpus.schema.blank,
                # Which views, which labels' policy: defaults too, so that they are always stated.
                "options": _options(corpus, prepared),
            }
            for name, corpus in prepared.corpora.items()
        },
        "leaks": prepared.leaks.summary(),
        "research_use_only": True,
    }
