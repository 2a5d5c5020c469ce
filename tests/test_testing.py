"""The kit passes what is right, and each check catches the fault that it is there for."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import ark_plugin_first as first
import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ConfigDict, Field
from torch import nn
from torch.nn import functional

from ark_framework import registry as plugins
from ark_framework.builtin import phantom, tiny
from ark_framework.builtin.backbones import SPECS as BACKBONES
from ark_framework.builtin.table import SPEC as TABLE
from ark_framework.errors import ConfigError
from ark_framework.specs import BackboneSpec, HeadSpec, LossSpec
from ark_framework.testing import CHECKS, check_plugin, conformance
from ark_framework.testing.verdict import verdict

test_builtin = conformance("ark-builtin")
test_phantom = conformance("phantom")
test_table = conformance("ark-plugin-table")

PHANTOM = {spec.name: spec for spec in phantom.ark_datasets()}
NORTH, ORGANS = PHANTOM["phantom-north"], PHANTOM["phantom-organs"]
NORTH_LABELS = set(plugins.load(["ark-phantom"]).schema_of(NORTH).labels)
FIRST = first.SPEC
# The checks that were seen to catch a fault; the tests of this file run in order, in one process.
_CAUGHT: set[str] = set()
TINY = next(spec for spec in BACKBONES if spec.name == "tiny")


def failures(kind: str, spec: Any, *check: str) -> dict[str, str]:
    """The checks that fail, of those named or of all, and what they say."""
    registry = plugins.load(["ark-phantom", "ark-table", "ark-first"])
    wanted = [each for each in CHECKS[kind] if not check or each.__name__ in check]
    results = [(each.__name__, verdict(each, registry, kind, spec)) for each in wanted]
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


def _mask_by_sex(row: Any, options: Any) -> np.ndarray:
    masks: np.ndarray = ORGANS.read_mask(row, options)  # type: ignore[misc]
    # Packing gives the image alone.
    return masks[::-1] if getattr(row, "sex", None) == "F" else masks


def _seeding(options: Any) -> pd.DataFrame:
    np.random.seed(0)  # noqa: NPY002 - the fault itself
    return NORTH.read(options)


def _absolute(options: Any) -> pd.DataFrame:
    frame = NORTH.read(options)
    return frame.assign(image="/data/" + frame["image"])


_kept: dict[str, pd.DataFrame] = {}


def _keeping(options: Any) -> pd.DataFrame:
    return _kept.setdefault(str(options), NORTH.read(options))


def _of_the_folder(options: Any) -> pd.DataFrame:
    return NORTH.read(options).assign(view=Path.cwd().name)


_films = iter(range(96, 200))


def _another_each_time(folder: Path) -> Any:
    return NORTH.options(films=next(_films), size=64)


def _by_position(options: Any) -> pd.DataFrame:
    found = pd.read_csv(options.root / "findings.csv", dtype=str)
    found.columns = pd.Index(["film", "person", "part", "effusion", "nodule"])
    table = pd.DataFrame({"image": "films/" + found["film"] + ".png", "patient": found["person"]})
    table["split"] = found["part"].map({"train": "train", "held out": "test"})
    for label in ("effusion", "nodule"):
        table[label] = found[label].map({"yes": 1.0, "no": 0.0, "perhaps": -1.0})
    return table


def _elsewhere(options: Any) -> pd.DataFrame:
    frame = TABLE.read(options)
    return frame.assign(image="elsewhere/" + frame["image"])


def _unlabelled(options: Any) -> pd.DataFrame:
    frame = NORTH.read(options)
    labels = [name for name in frame.columns if name in NORTH_LABELS]
    frame.loc[frame["split"] == "train", labels] = np.nan
    return frame


class _Forgetful(phantom.PhantomOptions):
    secret: int = Field(default=0, exclude=True)


def _forgetful_fixture(folder: Path) -> _Forgetful:
    return _Forgetful(films=96, size=64, secret=1)


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
        ("read_is_deterministic", replace(NORTH, read=_seeding), "numpy's global random"),
        ("read_gives_a_valid_table", replace(NORTH, read=_absolute), "below the dataset's root"),
        ("read_gives_a_table_of_its_own", replace(NORTH, read=_keeping), "copy it"),
        (
            "read_does_not_depend_on_the_working_folder",
            replace(NORTH, read=_of_the_folder),
            "another folder",
        ),
        (
            "fixture_is_deterministic",
            replace(NORTH, fixture=_another_each_time),
            "another miniature",
        ),
        ("labels_are_found_by_name", replace(FIRST, read=_by_position), "find them by name"),
        ("patients_stay_in_one_split", replace(NORTH, read=_leaking), "is in two splits"),
        ("films_lie_below_the_root", replace(TABLE, read=_elsewhere), "is not below the root"),
        (
            "options_survive_a_config_file",
            replace(NORTH, options=_Forgetful, fixture=_forgetful_fixture),
            "does not read back",
        ),
        ("twenty_steps_lower_the_loss", replace(NORTH, read=_unlabelled), "from 0 to 0"),
        ("splits_are_usable", replace(NORTH, read=_no_test), "no test films"),
        ("films_can_be_packed", replace(NORTH, read_image=_blank), "is blank"),
        ("films_can_be_packed", replace(NORTH, read_image=_floats), "not uint8"),
        ("reading_changes_no_file", replace(TABLE, read=_writing), "'cache.csv'"),
        ("masks_fit_their_films", replace(ORGANS, read_mask=_two_masks), "(2,"),
        (
            "masks_survive_packing",
            replace(ORGANS, read_mask=_mask_by_sex),
            "is packed otherwise",
        ),
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
    assert said in failures("dataset", spec, check)[check]
    _CAUGHT.add(check)


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


class _Noisy(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + torch.rand(3)


class _Hidden(nn.Linear):
    def __init__(self, width: int) -> None:
        super().__init__(width, 3)
        self.shift = torch.randn(3)  # neither parameter nor buffer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + self.shift


class _Stuck(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).detach() + 0 * self.weight.sum()


def _seeded_head(width: int, schema: Any) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(width, len(schema.labels))


@pytest.mark.parametrize(
    ("check", "build", "said"),
    [
        ("head_gives_logits", lambda width, schema: _Sum(), "not (4, 3)"),
        ("head_gives_logits", lambda width, schema: _Spare(width), "'spare.weight' has no gra"),
        ("head_gives_logits", lambda width, schema: lambda x: x, "no nn.Module"),
        (
            "head_takes_any_number_of_labels_and_films",
            lambda width, schema: nn.Linear(width, 3),
            "gave (1, 3) for 1 films of 1 labels",
        ),
        ("head_rests_in_eval", lambda width, schema: _Noisy(width, 3), "with chance"),
        ("head_can_be_copied", lambda width, schema: _Hidden(width), "a copy gives other"),
        ("head_leaves_chance_alone", _seeded_head, "seeds torch"),
        ("a_head_learns_in_twenty_steps", lambda width, schema: _Stuck(width, 3), "in 20 steps"),
    ],
)
def test_a_broken_head_is_caught(check: str, build: Any, said: str) -> None:
    """Each by the check that is there for it, in words."""
    spec = HeadSpec(name="broken", kinds=("multilabel",), build=build)
    assert said in failures("head", spec, check)[check]
    _CAUGHT.add(check)


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


def _exponential(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (out * (0.5 - target.nan_to_num(0.5))).exp() * ~target.isnan()


def _random_loss(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return _right(out, target) * torch.rand(())


def _overwriting(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    value = _right(out, target)
    target.nan_to_num_()
    return value


def _without_gradient(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return _right(out.detach(), target) + 0 * out


@pytest.mark.parametrize(
    ("check", "loss", "said"),
    [
        ("loss_is_unreduced", lambda o, t: _right(o, t).mean(), "unreduced"),
        ("loss_is_unreduced", _bce, "not finite"),
        ("loss_ignores_what_is_not_annotated", _blank_is_negative, "has a loss"),
        ("loss_survives_an_empty_batch", _detached, "cut from the graph"),
        ("loss_depends_on_its_target", lambda o, t: -_right(o, t), "for right outputs"),
        ("loss_is_the_same_in_parts", lambda o, t: _right(o, t) * len(o), "several processes"),
        ("loss_stays_finite_for_certain_outputs", _exponential, "not finite for outputs of"),
        ("loss_leaves_chance_and_its_target_alone", _random_loss, "torch's global random"),
        ("loss_leaves_chance_and_its_target_alone", _overwriting, "its target in place"),
        ("a_loss_falls_in_twenty_steps", _without_gradient, "in 20 steps"),
    ],
)
def test_a_broken_loss_is_caught(check: str, loss: Any, said: str) -> None:
    """Reduced, poisoned by NaN, blank as negative, without a graph, upside down."""
    spec = LossSpec(name="broken", kinds=("multilabel",), build=lambda schema: loss)
    assert said in failures("loss", spec, check)[check]
    _CAUGHT.add(check)


class _Normed(tiny.TinyConv):
    def pool(self, last: torch.Tensor) -> torch.Tensor:
        pooled = super().pool(last)
        return pooled - pooled.mean(dim=0)


class _Backwards(tiny.TinyConv):
    def forward_maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        return super().forward_maps(x)[::-1]


class _Flat(tiny.TinyConv):
    def pool(self, last: torch.Tensor) -> torch.Tensor:
        return last.flatten(1)


class _Lonely(tiny.TinyConv):
    def pool(self, last: torch.Tensor) -> torch.Tensor:
        pooled = super().pool(last)
        return pooled[:, :8] if len(pooled) == 1 else pooled


class _Drifting(tiny.TinyConv):
    def train(self, mode: bool = True) -> Any:
        with torch.no_grad():
            self.norm.weight.mul_(1.1)
        return super().train(mode)


class _HiddenMap(tiny.TinyConv):
    def __init__(self) -> None:
        super().__init__()
        self.shift = torch.randn(1)

    def pool(self, last: torch.Tensor) -> torch.Tensor:
        return super().pool(last) + self.shift


class _Constant(tiny.TinyConv):
    def pool(self, last: torch.Tensor) -> torch.Tensor:
        return super().pool(last) * 0


class _Diverging(tiny.TinyConv):
    def __init__(self) -> None:
        super().__init__()
        self.scale = 1.0

    def pool(self, last: torch.Tensor) -> torch.Tensor:
        self.scale *= -10
        return super().pool(last) * self.scale


@pytest.mark.parametrize(
    ("check", "made", "said"),
    [
        ("odd_sizes_work_or_are_refused", _Flat, "films of 90 x 90 give"),
        ("backbone_keeps_its_width", _Lonely, "for different numbers of films"),
        ("eval_comes_back_after_training", _Drifting, "by train() and eval() alone"),
        ("backbone_can_be_copied", _HiddenMap, "a copy gives other features"),
        ("features_tell_films_apart", _Constant, "the same features"),
        ("a_backbone_learns_in_twenty_steps", _Diverging, "in 20 steps"),
        ("backbone_rests_in_eval", _Normed, "batch"),
        ("backbone_keeps_its_contract", _Backwards, "fine to coarse"),
        ("backbone_keeps_its_contract", nn.Identity, "in_chans"),
    ],
)
def test_a_broken_backbone_is_caught(check: str, made: Any, said: str) -> None:
    """Films that see one another, maps the wrong way round, no contract at all."""
    spec = BackboneSpec(name="broken", options=TINY.options, build=lambda options: made())
    assert said in failures("backbone", spec, check)[check]
    _CAUGHT.add(check)


HOOKS = """
from ark_framework import LabelSchema, hookimpl
{more}
SCHEMAS = [LabelSchema(name=f"odd-{n}", kind="multilabel", labels=("a",)) for n in range(9)]

@hookimpl
def ark_label_schemas():
    return {given}
"""


@pytest.mark.parametrize(
    ("check", "more", "given", "said"),
    [
        ("hooks_are_pure", "", "[SCHEMAS.pop()]", "return the same each time"),
        ("hooks_are_pure", "import random", "[SCHEMAS[int(random.random())]]", "uses random's"),
        ("hooks_return_a_fresh_list", "", "SCHEMAS", "returns one list to all"),
        ("importing_it_brings_no_torch", "import torch", "SCHEMAS[:]", "import it inside build"),
    ],
)
def test_a_broken_plugin_is_caught(
    install: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    check: str,
    more: str,
    given: str,
    said: str,
) -> None:
    """A hook that changes, draws chance or shares its list, and a heavy import."""
    install("odd", HOOKS.replace("{more}", more).replace("{given}", given))
    monkeypatch.setenv("PYTHONPATH", sys.path[0])
    (record,) = (each for each in plugins.discover() if each.name == "ark-odd")
    assert said in failures("plugin", record, check)[check]
    _CAUGHT.add(check)


def test_each_check_has_caught_something() -> None:
    """No check of the kit stands there without a fault that it was seen to catch."""
    all_of_them = {check.__name__ for checks in CHECKS.values() for check in checks}
    assert all_of_them - _CAUGHT == set()


def test_an_expected_failure_has_a_reason_and_fails() -> None:
    """It is reported as skipped with its reason; where the check holds, or is unknown, it fails."""
    told = {"the_card_is_filled_in": "the card is being written"}
    registry = plugins.load(["ark-phantom"])
    check = next(c for c in CHECKS["dataset"] if c.__name__ == "the_card_is_filled_in")
    broken = replace(NORTH, card=replace(NORTH.card, home=""))
    result = verdict(check, registry, "dataset", broken, told[check.__name__])
    assert (result.ok, result.skipped) == (True, True)
    assert "the card is being written" in result.message
    result = verdict(check, registry, "dataset", NORTH, told[check.__name__])
    assert not result.ok
    assert "take it out" in result.message
    with pytest.raises(ConfigError, match="did you mean 'the_card_is_filled_in'"):
        check_plugin("ark-phantom", expected_failures={"the_card_is_filled": "typo"})
    with pytest.raises(ConfigError, match="needs a reason"):
        check_plugin("ark-phantom", expected_failures={"the_card_is_filled_in": " "})


def test_results_have_names_and_reasons() -> None:
    """A skipped check says why; nothing fails; an unknown plugin is an error."""
    results = check_plugin("ark-phantom")
    assert all(result.ok for result in results)
    assert all(result.message for result in results if result.skipped)
    assert len({result.name for result in results}) == len(results)
    with pytest.raises(ConfigError, match="no plugin"):
        check_plugin("ark-absent")
