"""What an audit of fairness may say: subgroups, cuts, and training on one sex at a time."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from ark_framework.config import Section
from ark_framework.statistics import FEW
from ark_framework.transfer.settings import SubjectsConfig


class CutsConfig(Section):
    """Above which score a finding is called: always chosen on validation films."""

    policy: Literal["target-specificity", "youden", "fixed"] = Field(
        default="target-specificity",
        description="one specificity, so that models compare; the best sum of rates; a given cut",
    )
    at: float | None = Field(
        default=None, ge=0, le=1, description="the specificity, 0.9, or the fixed cut, 0.5"
    )
    by: str | None = Field(
        default=None, description="a grouping whose groups have cuts of their own, such as sex"
    )

    @model_validator(mode="after")
    def _used(self) -> CutsConfig:
        if self.policy == "youden" and self.at is not None:
            raise ValueError("youden chooses by itself; leave out at")
        return self


class ExclusiveConfig(Section):
    """Probes trained on one sex at a time (Larrazabal et al. 2020)."""

    folds: int = Field(default=20, ge=0, description="dealings of the films; 0 = none of this")
    files: str | None = Field(
        default=None, description="folder of the published fold files, instead of dealings"
    )
    shares: tuple[float, ...] = Field(
        default=(0.0, 1.0), description="shares of women among the training films"
    )
    c: float = Field(default=0.01, gt=0, description="inverse regularization; nothing chooses it")
    seed: int = Field(default=0, ge=0, description="of films, pairs and dealings")

    @field_validator("shares")
    @classmethod
    def _shares(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        found = tuple(sorted(set(values)))
        if not {0.0, 1.0} <= set(found) or min(found) < 0 or max(found) > 1:
            raise ValueError("give shares from 0 to 1, those two among them")
        return found


class FairnessConfig(SubjectsConfig):
    """Models audited on datasets."""

    answers: Literal["heads", "probe"] | None = Field(
        default=None,
        description="the models' own heads, or probes on embeddings; heads if absent where every "
        "model has one for the dataset",
    )
    head: str | None = Field(default=None, description="the head to take; the dataset's if absent")
    labels: tuple[str, ...] | None = Field(
        default=None, description="what is judged; what the dataset scores if absent"
    )
    normal: str | None = Field(
        default=None, description="the label of films without findings; known by its name if absent"
    )
    by: tuple[str, ...] | None = Field(
        default=None,
        description="groupings: sex, age, view, a plugin's own, or several as sex+age; all if "
        "absent",
    )
    ages: tuple[float, ...] = Field(
        default=(18, 40, 60, 80), description="where bands of age begin, in years"
    )
    least: int = Field(
        default=FEW, ge=5, description="patients that a rate must rest on, or it is not scored"
    )
    cuts: CutsConfig = CutsConfig()
    exclusive: ExclusiveConfig = ExclusiveConfig()
    replicates: int = Field(default=1000, ge=100, description="draws of patients for intervals")
    seed: int = Field(default=0, ge=0, description="of those draws")

    @field_validator("ages")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or list(values) != sorted(set(values)) or values[0] <= 0:
            raise ValueError("give ages in ascending order, above 0")
        return values
