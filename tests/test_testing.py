"""The kit passes what is right, and each check catches the fault that it is there for."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ConfigDict
from torch import nn
from torch.nn import functional

from ark_framework import registry as plugins
from ark_framework import testing
from ark_framework.builtin import phantom, tiny
from ark_framework.builtin.backbones import SPECS as BACKBONES
from ark_framework.builtin.table import SPEC as TABLE
from ark_framework.errors import ConfigError
from ark_framework.specs import BackboneSpec, HeadSpec, LossSpec
from ark_framework.testing import CHECKS, check_plugin, conformance

test_builtin = conformance("ark-builtin")
test_phantom = conformance("phantom")
test_table = conformance("ark-plugin-table")

PHANTOM = {spec.name: spec for spec in phantom.ark_datasets()}
NORTH = PHANTOM["phantom-north"]
TINY = next(spec for spec in BACKBONES if spec.name == "tiny")


def failures(kind: str, spec: Any) -> dict[str, str]:
    """The checks that fail, and what they say."""
    registry = plugins.load(["ark-phantom", "ark-table"])
    results = [
        (check.__name__, testing._run(check, registry, kind, spec)) for check in CHECKS[kind]
    ]
    return {name: result.message for name, result in results if not result.ok}


def _no_opacity(options: Any) -> pd.DataFrame:
    return NORTH.read(options).assign(opacity=0.0)


def _column_missing(options: Any) -> pd.DataFrame:
    return NORTH.read(options).drop(columns="edema")


def _chance(options: Any) -> pd.DataFrame:
    frame = NORTH.read(options)
    return frame.sample(len(frame), random_state=random.getrandbits(30))


def _global_chance(options: Any) -> pd.DataFrame:
    np.random.random()  # noqa: NPY002 - the fault itself
    return NORTH.read(options)


def _leaking(options: Any) -> pd.DataFrame:
    frame = NORTH.read(options)
    frame.loc[frame["split"] == "test", "patient"] = frame["patient"].iloc[0]
    return frame


def _no_test(options: Any) -> pd.DataFrame:
    frame = NORTH.read(options)
    return frame[frame["split"] != "test"]


def _writing(options: Any) -> pd.DataFrame:
    (options.root / "cache.csv").write_text("mine")
    return TABLE.read(options)


def _blank(row: Any, options: Any) -> np.ndarray:
    return np.zeros((8, 8), dtype=np.uint8)


def _floats(row: Any, options: Any) -> np.ndarray:
    return np.ones((8, 8))


def _two_masks(row: Any, options: Any) -> np.ndarray:
    return np.zeros((2, 8, 8), dtype=bool)


class _Loose(phantom.PhantomOptions):
    model_config = ConfigDict(extra="ignore")


def _loose_fixture(folder: Path) -> _Loose:
    return _Loose(films=96, size=64)


@pytest.mark.parametrize(
    ("check", "spec", "said"),
    [
        ("read_gives_a_valid_table", replace(NORTH, read=_column_missing), "no column 'edema'"),
        ("read_is_deterministic", replace(NORTH, read=_chance), "global random generator"),
        ("read_is_deterministic", replace(NORTH, read=_global_chance), "global random generator"),
        ("every_label_is_seen_both_ways", replace(NORTH, read=_no_opacity), "'opacity' = 1"),
        ("splits_are_usable", replace(NORTH, read=_leaking), "is in two splits"),
        ("splits_are_usable", replace(NORTH, read=_no_test), "no test films"),
        ("films_can_be_packed", replace(NORTH, read_image=_blank), "is blank"),
        ("films_can_be_packed", replace(NORTH, read_image=_floats), "not uint8"),
        ("reading_changes_no_file", replace(TABLE, read=_writing), "'cache.csv'"),
        ("masks_fit_their_films", replace(PHANTOM["phantom-organs"], read_mask=_two_masks), "(2,"),
        ("defaults_exist", replace(NORTH, head="absent"), "no head 'absent'"),
        (
            "options_refuse_unknown_keys",
            replace(NORTH, options=_Loose, fixture=_loose_fixture),
            "forbid",
        ),
        ("the_card_is_filled_in", replace(NORTH, card=replace(NORTH.card, home=" ")), "home"),
        ("read_gives_a_valid_table", replace(NORTH, fixture=lambda folder: 3), "returned int"),
    ],
)
def test_a_broken_dataset_is_caught(check: str, spec: Any, said: str) -> None:
    """By the check that is there for it, in words."""
    assert said in failures("dataset", spec)[check]


class _Sum(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=1)


class _Spare(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(width, 3), nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.used(x)
        return out


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda width, schema: _Sum(), "not (4, 3)"),
        (lambda width, schema: _Spare(width), "'spare.weight' has no gradient"),
        (lambda width, schema: lambda x: x, "no nn.Module"),
    ],
)
def test_a_broken_head_is_caught(build: Any, said: str) -> None:
    """Wrong shape, a parameter that is never used, and no module at all."""
    spec = HeadSpec(name="broken", kinds=("multilabel",), build=build)
    assert said in failures("head", spec)["head_gives_logits"]


def _bce(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(out, target, reduction="none")


def _blank_is_negative(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return _bce(out, target.nan_to_num())


def _detached(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if target.isnan().all():
        return torch.zeros_like(target)
    return _right(out, target)


def _right(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return _bce(out, target.nan_to_num()) * ~target.isnan()


@pytest.mark.parametrize(
    ("check", "loss", "said"),
    [
        ("loss_is_unreduced", lambda o, t: _right(o, t).mean(), "unreduced"),
        ("loss_is_unreduced", _bce, "not finite"),
        ("loss_ignores_what_is_not_annotated", _blank_is_negative, "has a loss"),
        ("loss_survives_an_empty_batch", _detached, "cut from the graph"),
        ("loss_depends_on_its_target", lambda o, t: -_right(o, t), "for right outputs"),
    ],
)
def test_a_broken_loss_is_caught(check: str, loss: Any, said: str) -> None:
    """Reduced, poisoned by NaN, blank as negative, without a graph, upside down."""
    spec = LossSpec(name="broken", kinds=("multilabel",), build=lambda schema: loss)
    assert said in failures("loss", spec)[check]


class _Normed(tiny.TinyConv):
    def pool(self, last: torch.Tensor) -> torch.Tensor:
        pooled = super().pool(last)
        return pooled - pooled.mean(dim=0)


class _Backwards(tiny.TinyConv):
    def forward_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        return super().forward_maps(x)[::-1]


@pytest.mark.parametrize(
    ("check", "made", "said"),
    [
        ("backbone_rests_in_eval", _Normed, "batch"),
        ("backbone_keeps_its_contract", _Backwards, "fine to coarse"),
        ("backbone_keeps_its_contract", nn.Identity, "in_chans"),
    ],
)
def test_a_broken_backbone_is_caught(check: str, made: Any, said: str) -> None:
    """Films that see one another, maps the wrong way round, no contract at all."""
    spec = BackboneSpec(name="broken", options=TINY.options, build=lambda options: made())
    assert said in failures("backbone", spec)[check]


def test_results_have_names_and_reasons() -> None:
    """A skipped check says why; nothing fails; an unknown plugin is an error."""
    results = check_plugin("ark-phantom")
    assert all(result.ok for result in results)
    assert all(result.message for result in results if result.skipped)
    assert len({result.name for result in results}) == len(results)
    with pytest.raises(ConfigError, match="no plugin"):
        check_plugin("ark-absent")
