"""What the user may write: strict, frozen models; an unknown key is an error with a suggestion.

Precedence: defaults, then recipe, then file, then flags, then ``--set``.  Plugin options stay a
mapping here; the registry checks them against the plugin's own type.  A file is YAML with each key
once; ``1e-3`` is a number, and ``010``, ``1:30`` and dates are text.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ark_framework import yamlfile
from ark_framework.errors import ConfigError, did_you_mean
from ark_framework.wording import checked

Share = Annotated[float, Field(ge=0, lt=1)]
Weight = Annotated[float, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
# Beyond these nothing is meant, and a plan or a model would fill the memory.
CYCLES, WIDTH, PROCESSES, SEED = 1_000_000, 2**17, 4096, 2**62


class Section(BaseModel):
    """Base of every section: strict, frozen, finite numbers, no unknown keys."""

    model_config = ConfigDict(
        strict=True, frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class TaskConfig(Section):
    """One task: a dataset and what to do differently for it."""

    dataset: str = Field(description="name of a dataset of the named plugins")
    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$",  # files are named after it
        description="task name; the dataset's when absent",
    )
    head: str | None = Field(default=None, description="head; the dataset's when absent")
    loss: str | None = Field(default=None, description="loss; by the schema's kind when absent")
    weight: float = Field(default=1.0, gt=0, description="factor on the task loss")
    steps: int | None = Field(default=None, gt=0, description="steps a cycle; one pass when absent")
    max_rows: int | None = Field(default=None, gt=0, description="train on at most this many films")
    class_weights: Literal["balanced"] | dict[str, Weight] | None = Field(
        default=None, description="weight of a positive, per label"
    )


class LossesConfig(Section):
    """The loss of each kind, where neither task nor dataset names one."""

    multilabel: str = Field(default="bce", description="where labels may be true together")
    multiclass: str = Field(default="cross_entropy", description="where exactly one class is true")


class StoreConfig(Section):
    """How films are packed."""

    folder: str | None = Field(default=None, description="$ARK_STORE or the cache when absent")
    size: int = Field(default=256, ge=16, le=4096, description="stored side in pixels")
    fit: Literal["squash", "pad", "crop"] = Field(
        default="squash", description="how a film becomes square: squash loses its aspect"
    )
    workers: int | None = Field(
        default=None, gt=0, le=PROCESSES, description="packing processes; all cores"
    )
    max_bad: int = Field(default=0, ge=0, description="unreadable films to tolerate per dataset")
    resident: bool | None = Field(
        default=None,
        description="keep training films on the device; where half of a GPU's free memory holds "
        "them if absent",
    )


class ViewsConfig(Section):
    """The two random views; geometry is shared, photometry is the student's only."""

    size: int = Field(default=224, ge=16, description="side that the model sees, in pixels")
    scale: tuple[Above, Above] = Field(default=(0.08, 1.0), description="crop area, share of film")
    ratio: tuple[Above, Above] = Field(default=(0.75, 4 / 3), description="crop aspect")
    affine_p: float = Field(default=0.5, ge=0, le=1, description="chance of shift, zoom, rotation")
    shift: float = Field(default=0.0625, ge=0, lt=0.5, description="share of the side, either way")
    zoom: float = Field(default=0.1, ge=0, lt=1, description="share of the size, either way")
    rotate: float = Field(default=10.0, ge=0, le=180, description="degrees, either way")
    photometry_p: float = Field(default=0.3, ge=0, le=1, description="chance of a change in tone")
    brightness: float = Field(default=0.2, ge=0, lt=1, description="largest offset, white being 1")
    contrast: float = Field(default=0.2, ge=0, lt=1, description="largest change of the gain of 1")
    gamma: tuple[Above, Above] = Field(default=(0.8, 1.2), description="bounds of the exponent")
    teacher: Literal["shared", "whole"] = Field(
        default="shared", description="the student's crop, or the whole film (Ark+)"
    )
    teacher_sampling: Literal["bilinear", "nearest"] = Field(
        default="bilinear", description="how the teacher's view is sampled from the stored film"
    )

    @model_validator(mode="after")
    def _ranges(self) -> ViewsConfig:
        for name in ("scale", "ratio", "gamma"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name} {low} to {high}: give the lower bound first")
        if self.scale[1] > 1:
            raise ValueError(f"scale up to {self.scale[1]}: a crop is at most the whole film, 1")
        return self


class ModelConfig(Section):
    """Backbone, projector and where the weights start."""

    backbone: str = Field(default="timm", description="name of the encoder")
    options: dict[str, Any] = Field(default_factory=dict, description="the backbone's own options")
    projector: Literal["linear", "mlp", "none"] = Field(
        default="mlp", description="between the pooled features and the heads"
    )
    features: int = Field(default=1376, gt=0, le=WIDTH, description="width of the projection")
    init: str = Field(default="random", description="random, pretrained (timm), or a file")
    normalize: Literal["imagenet", "none"] = Field(
        default="imagenet", description="whose mean and deviation are taken out of the views"
    )
    checkpointing: bool = Field(
        default=False, description="compute activations twice rather than keep them"
    )


class OptimConfig(Section):
    """The optimizer; ``lr`` is the peak of its schedule."""

    name: Literal["sgd", "adamw"] = Field(default="sgd", description="which optimizer")
    lr: float = Field(default=0.3, gt=0, description="peak of the learning rate")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    nesterov: bool = Field(default=True, description="Nesterov's momentum, of sgd")
    betas: tuple[Share, Share] = Field(default=(0.9, 0.999), description="of adamw")
    weight_decay: float = Field(default=0.0, ge=0, description="of either optimizer")
    clip: float | None = Field(default=None, gt=0, description="largest gradient norm")
    max_bad_steps: int = Field(
        default=0,
        ge=0,
        description="steps to skip, in all, whose loss or gradient is not finite; one more ends "
        "the run",
    )


class LrConfig(Section):
    """The learning rate's course."""

    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="what follows the warm-up"
    )
    unit: Literal["step", "cycle"] = Field(
        default="step", description="how often the rate changes, and what warm-up is counted in"
    )
    warmup: float = Field(default=0.1, ge=0, le=1, description="share of the run")
    start: float = Field(default=1e-6, ge=0, description="rate at the first step of the warm-up")
    end: float = Field(default=1e-5, ge=0, description="rate at the end of the cosine")
    prefix: bool = Field(default=True, description="begin the cosine where the warm-up ends")
    first_cycle: float | None = Field(default=None, ge=0, description="rate of cycle 0 alone")


class TeacherConfig(Section):
    """Momentum and consistency."""

    momentum: float = Field(default=0.9, ge=0, lt=1, description="first momentum; rises to 1")
    start: Literal["copy", "independent"] = Field(
        default="copy", description="of the student, or a draw of its own (as released)"
    )
    consistency: str = Field(
        default="mse", description="loss between the student's and the teacher's projections"
    )
    consistency_peak: float = Field(default=0.5, ge=0, lt=1, description="weight at the end")


class EvalConfig(Section):
    """When validation is scored."""

    every: int = Field(default=1, ge=0, description="cycles between scorings; 0 = only the test")
    forgetting_every: int = Field(default=0, ge=0, description="score after every task of each kth")
    batch_size: int = Field(default=256, gt=0, description="films scored at once")
    test: bool = Field(default=True, description="score the test splits once, at the end")


class LogConfig(Section):
    """Logging."""

    every: int = Field(default=20, gt=0, description="steps between flushes")
    tensorboard: bool = Field(default=True, description="write tb/ into the run's folder")


class CheckpointConfig(Section):
    """When to save, and what to keep."""

    every: int = Field(default=500, gt=0, description="steps")
    keep: int = Field(default=0, ge=0, description="also keep cycle-NNNN.pt every so many cycles")
    best: bool = Field(default=False, description="keep the best teacher on validation too")


class RuntimeConfig(Section):
    """Where it runs."""

    device: str | None = Field(default=None, description="the GPU if there is one, else the CPU")
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="of the forward pass")
    threads: int | None = Field(
        default=None, gt=0, le=PROCESSES, description="of torch on the CPU; its choice"
    )
    piece: int | None = Field(
        default=None, gt=0, description="films at once, gradients being added up; all if absent"
    )
    tf32: bool = Field(default=False, description="round factors of fp32 products, on GPUs")
    channels_last: bool = Field(default=False, description="keep a pixel's channels together")
    compile: bool = Field(default=False, description="compile the encoder, and views on GPUs")


class ValidationConfig(Section):
    """The split made where a dataset has no validation films of its own."""

    fraction: float = Field(default=0.1, ge=0, lt=1, description="of training patients")
    seed: int = Field(
        default=0, ge=0, le=SEED, description="of this draw alone; the run's does not move it"
    )


class RunConfig(Section):
    """A whole run."""

    plugins: tuple[str, ...] = Field(default=(), description="who may speak, in training order")
    tasks: tuple[TaskConfig, ...] | None = Field(
        default=None, description="what to train on; every classification dataset when absent"
    )
    data: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="options per dataset, such as root; `like: table` makes a dataset of its own "
        "that is read as `table` is",
    )
    losses: LossesConfig = LossesConfig()
    leaks: Literal["refuse", "drop", "drop-patients", "allow"] = Field(
        default="refuse", description="training films that are held out somewhere"
    )
    strategy: Literal["cyclic", "concurrent", "sequential"] = Field(
        default="cyclic", description="tasks in turn every cycle, all in each step, or one by one"
    )
    order: Literal["fixed", "shuffled"] = Field(
        default="fixed", description="of the tasks, in every cycle"
    )
    cycles: int = Field(default=10, gt=0, le=CYCLES, description="visits to every task")
    batch_size: int = Field(default=64, gt=0, description="global batch")
    limit: int | None = Field(default=None, gt=0, description="films per split, for a quick try")
    seed: int = Field(default=0, ge=0, le=SEED, description="of weights, order and augmentation")
    store: StoreConfig = StoreConfig()
    validation: ValidationConfig = ValidationConfig()
    views: ViewsConfig = ViewsConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    lr: LrConfig = LrConfig()
    teacher: TeacherConfig = TeacherConfig()
    eval: EvalConfig = EvalConfig()
    log: LogConfig = LogConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    runtime: RuntimeConfig = RuntimeConfig()

    @model_validator(mode="after")
    def _sizes(self) -> RunConfig:
        if self.views.size > self.store.size:
            raise ValueError(
                f"views.size {self.views.size} is larger than store.size "
                f"{self.store.size}; films are not enlarged"
            )
        return self


def parse(values: Mapping[str, Any]) -> RunConfig:
    """Check a plain mapping.

    Raises:
        ConfigError: one line with the key, the value and what is accepted.
    """
    return checked(RunConfig, values, where="config")


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML file as a mapping.

    Raises:
        ConfigError: the file is absent, is not YAML or is not a mapping.
    """
    try:
        values = yamlfile.parse(yamlfile.read_text(path))
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path} must hold keys and values, not a {type(values).__name__}")
    return values


def recipes() -> tuple[str, ...]:
    """Return the names of the built-in recipes."""
    folder = resources.files("ark_framework") / "recipes"
    return tuple(sorted(Path(f.name).stem for f in folder.iterdir() if f.name.endswith(".yaml")))


def recipe(name: str) -> dict[str, Any]:
    """Return a recipe's values.

    Raises:
        ConfigError: there is no such recipe.
    """
    if name not in recipes():
        raise ConfigError(
            f"no recipe {name!r}{did_you_mean(name, recipes())}; known: {', '.join(recipes())}"
        )
    text = (resources.files("ark_framework") / "recipes" / f"{name}.yaml").read_text("utf-8")
    values: dict[str, Any] = yamlfile.parse(text)
    return values


def assignment(text: str) -> dict[str, Any]:
    """Turn ``a.b=c`` into ``{"a": {"b": c}}``; the value is YAML, ``null`` clears.

    Raises:
        ConfigError: there is no ``=`` or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {text[:80]!r}: write key=value, such as optim.lr=0.01")
    try:
        result: Any = yamlfile.parse(value)
    except ValueError as error:
        raise ConfigError(f"--set {text[:80]!r}: the value is not valid YAML: {error}") from error
    for part in reversed(parts):
        result = {part: result}
    nested: dict[str, Any] = result
    return nested


def merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Lay mappings over one another; later wins, nested mappings are merged."""
    merged: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            old = merged.get(key)
            both = isinstance(old, Mapping) and isinstance(value, Mapping)
            merged[key] = merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def dump(config: RunConfig) -> str:
    """Return the whole configuration as YAML that reads back to the same."""
    return yamlfile.dump(config.model_dump(mode="json"))
