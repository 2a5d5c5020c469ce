"""What a study may say: models, datasets, protocols and their settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from ark_framework import wording
from ark_framework.config import (
    RunConfig,
    RuntimeConfig,
    Section,
    StoreConfig,
    TaskConfig,
    ValidationConfig,
    merge,
)
from ark_framework.errors import ConfigError
from ark_framework.transfer.protocol import FinetuneConfig, ProbeConfig, SegmentConfig

Protocol = Literal["finetune", "probe", "few-shot", "knn", "external", "segment"]


class ModelEntry(Section):
    """A model under test and, where the architecture alone is known, what it sees."""

    source: str = Field(description="a path, random:ARCH or timm:ARCH")
    size: int | None = Field(default=None, ge=16, le=4096, description="side that the model sees")
    resize: int | None = Field(
        default=None, ge=16, le=4096, description="side that films are fitted to"
    )


class FoldsConfig(Section):
    """Folds by patient, instead of a dataset's own splits."""

    count: int = Field(default=5, ge=3, description="parts: one tests, one validates, others train")
    repeats: int = Field(default=1, gt=0, description="how often the patients are dealt anew")
    seed: int = Field(default=0, ge=0, description="of the dealing")


class SubjectsConfig(Section):
    """Models and datasets, and how films and embeddings are come by."""

    models: dict[str, str | ModelEntry] = Field(description="name: where it comes from")
    plugins: tuple[str, ...] = Field(default=(), description="plugins that provide the datasets")
    datasets: tuple[str, ...] | None = Field(default=None, description="all with labels if absent")
    limit: int | None = Field(default=None, gt=0, description="films per split, for a quick try")
    probe: ProbeConfig = ProbeConfig()
    data: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="options per dataset, such as root"
    )
    store: StoreConfig = StoreConfig()
    validation: ValidationConfig = ValidationConfig()
    runtime: RuntimeConfig = RuntimeConfig()


class StudyConfig(SubjectsConfig):
    """Models, datasets and protocols."""

    protocols: tuple[Protocol, ...] = Field(default=("probe",), description="what is done")
    seeds: int = Field(default=1, gt=0, description="of fine-tuning and of random weights: 0, 1, …")
    folds: FoldsConfig | None = Field(
        default=None, description="the datasets' own splits if absent"
    )
    finetune: FinetuneConfig = FinetuneConfig()
    segment: SegmentConfig = SegmentConfig()


Config = TypeVar("Config", bound=SubjectsConfig)


def parse(*layers: Mapping[str, Any], models: bool = True) -> StudyConfig:
    """Check a study's mappings; see :func:`checked`.

    Without ``models`` it need not name any: only its datasets are wanted.
    """
    return checked(StudyConfig, *layers, where="study", models=models)


def checked(
    kind: type[Config], *layers: Mapping[str, Any], where: str, models: bool = True
) -> Config:
    """Check mappings laid over a kind's defaults and over one another; later wins.

    Raises:
        ConfigError: one line with the key, the value and what is accepted.
    """
    values = merge(kind(models={}).model_dump(mode="json"), *layers)
    config = wording.checked(kind, values, where=where, hint=_of_training)
    if models and not config.models:
        raise ConfigError(f"{where}: no models; name at least one")
    return config


def _of_training(error: ValidationError) -> str:
    """Say what to do with a file that was written for ``ark train``."""
    first = error.errors(include_url=False)[0]
    if first["type"] != "extra_forbidden" or first["loc"][0] not in RunConfig.model_fields:
        return ""
    return "; it is of training: keep plugins and data in a file of their own, for all commands"


def reading(config: SubjectsConfig) -> RunConfig:
    """Return the part of a run's configuration that datasets are read with."""
    tasks = config.datasets
    store = config.store
    views = RunConfig().views.model_copy(update={"size": min(224, store.size)})
    return RunConfig(
        plugins=config.plugins,
        tasks=None if tasks is None else tuple(TaskConfig(dataset=name) for name in tasks),
        data=config.data,
        store=store,
        views=views,
        validation=config.validation,
        limit=config.limit,
        runtime=config.runtime,
    )
