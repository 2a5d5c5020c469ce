"""Masks from the plugin to the store, the corpus, the sheet and the counts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import BaseModel

from ark_framework import (
    DatasetCard,
    DatasetSpec,
    LabelSchema,
    PluginError,
    cli,
    masks,
    registry,
)
from ark_framework import config as configuration
from ark_framework.annotations import validate
from ark_framework.cli import sheet
from ark_framework.config import ViewsConfig
from ark_framework.corpus import Corpus, open_corpus
from ark_framework.errors import DataError
from ark_framework.images import fit_square
from ark_framework.overlay import FILL, FIRST, _lab, colors, outline, overlay
from ark_framework.packing import ensure
from ark_framework.store import Source, Store
from ark_framework.transfer.datasets import digest
from ark_framework.views import draw, make_views

MINIATURES = {
    "jsrt": "ark-jsrt",
    "montgomery": "ark-montgomery",
    "vindr-ribcxr": "ark-vindr-ribcxr",
    "siim-mask": "ark-siim",
    "phantom-organs": "ark-phantom",
}
SCHEMA = LabelSchema(name="two", kind="mask", labels=("a", "b"))
CARD = DatasetCard(title="t", home="h", licence="l", access="open", citation="c")


class Options(BaseModel):
    root: Path
    edition: int = 0


def miniature(name: str, folder: Path) -> tuple[DatasetSpec, Any, dict[str, Any]]:
    """Write a miniature; return its spec, its options, and the same as they are configured."""
    spec = registry.load((MINIATURES[name],)).dataset(name)
    (folder / name).mkdir()
    options = spec.fixture(folder / name)
    return spec, options, {name: options.model_dump(mode="json")}


def opened(name: str, folder: Path, *, size: int, fit: str = "squash") -> tuple[Corpus, Any]:
    """Return a miniature's corpus and its options."""
    spec, options, data = miniature(name, folder)
    config = configuration.parse(
        {
            "plugins": [MINIATURES[name]],
            "data": data,
            "store": {"size": size, "fit": fit, "folder": str(folder), "workers": 1},
            "views": {"size": size},
        }
    )
    return open_corpus(spec, registry.load(config.plugins), config, roots={}), options


def read(corpus: Corpus, options: Any) -> list[np.ndarray]:
    """Return what the plugin itself gives, film by film."""
    assert corpus.spec.read_mask is not None
    return [corpus.spec.read_mask(row, options) for row in corpus.table.frame.itertuples()]


@given(st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_structures_survive_their_bits(count: int, seed: int) -> None:
    """However many planes, and however they overlap, they come back as they were."""
    planes = np.random.default_rng(seed).random((2, count, 3, 5)) < 0.5
    bits = masks.pack(planes)
    assert bits.dtype == np.uint8
    assert bits.shape == (2, masks.planes(count), 3, 5)
    back = masks.unpack(bits, count)
    assert back.dtype == bool
    assert np.array_equal(back, planes)
    last = count - 1
    assert np.array_equal(bits[:, last // 8] >> last % 8 & 1, planes[:, last])


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("size", [8, 23, 64])
@pytest.mark.parametrize("larger", [1, 2, 3])
def test_masks_are_fitted_as_their_films(fit: str, size: int, larger: int) -> None:
    """A mask lies on the square where its film shows it, whatever size the film has."""
    y, x = np.mgrid[:38, :52]
    planes = np.stack([np.hypot(y - 12, x - 40) < 9, (y > 20) & (x < 30), np.ones((38, 52), bool)])
    found = masks.fit(planes, size, fit)
    for plane, stored in zip(planes, found, strict=True):
        film = np.kron(plane, np.ones((larger, larger))).astype(np.uint8) * 255
        shown = fit_square(film, size, fit)[0]
        assert stored[shown > 0.65 * 255].all()
        assert not stored[shown < 0.35 * 255].any()


def test_a_mask_at_its_own_size_is_not_resampled() -> None:
    """Single pixels and thin lines stay."""
    planes = np.random.default_rng(0).random((3, 16, 16)) < 0.5
    assert np.array_equal(masks.fit(planes, 16, "squash"), planes)


def test_half_is_in() -> None:
    """What averages to exactly one half is in, along either axis."""
    stripes = np.tile([True, False], (32, 16))
    found = masks.fit(np.stack([stripes, stripes.T]), 16, "squash")
    assert found[0, :, 1:-1].all()
    assert found[1, 1:-1].all()


@pytest.mark.parametrize(("size", "fit"), [(32, "squash"), (24, "pad"), (64, "crop")])
def test_heart_over_lung_survives_packing(tmp_path: Path, size: int, fit: str) -> None:
    """JSRT's masks, of another size than the films, come back bit for bit; overlaps too."""
    corpus, options = opened("jsrt", tmp_path, size=size, fit=fit)
    rows = np.arange(len(corpus.table))[::-1]
    found = corpus.masks(rows)[::-1]
    given = read(corpus, options)
    wanted = given if size == 32 else [masks.fit(mask, size, fit) for mask in given]
    assert np.array_equal(found, wanted)
    labels = corpus.schema.labels
    heart, lung = (found[:, labels.index(name)] for name in ("heart", "left_lung"))
    assert (heart & lung).any(axis=(1, 2)).all()


def test_films_are_as_they_are_without_masks(tmp_path: Path) -> None:
    """Beside masks the films are the same, in a lazy map, and their number is their channels."""
    corpus, options = opened("jsrt", tmp_path, size=32)
    names = corpus.table.frame["image"].tolist()
    films = ensure(corpus.spec, options, names, folder=tmp_path, size=32, fit="squash", workers=1)
    assert films.folder != corpus.store.folder
    assert isinstance(corpus.store.images, np.memmap)
    assert np.array_equal(corpus.store.images, films.images)
    assert (corpus.store.structures, corpus.store.masks.shape) == (5, (54, 1, 32, 32))
    assert (films.structures, films.masks.shape) == (0, (54, 0, 32, 32))
    assert not masks.unpack(films.masks, 0).size


def spec_of(read_mask: Callable[[Any, Any], Any] | None) -> DatasetSpec:
    return DatasetSpec(
        name="films",
        schema=lambda _: SCHEMA,
        options=Options,
        read=lambda _: pd.DataFrame(),
        fixture=lambda path: Options(root=path),
        card=CARD,
        read_mask=read_mask,
    )


def pack(
    root: Path, masks_by_film: dict[str, Any], *, max_bad: int = 0, film: tuple[int, int] = (30, 20)
) -> Store:
    """Pack films ``film`` high and wide of which each has the mask that is named for it."""

    def read_mask(row: Any, _: Options) -> Any:
        if isinstance(mask := masks_by_film[row.image], Exception):
            raise mask
        return mask

    for name in masks_by_film:
        Image.fromarray(np.full(film, 77, dtype=np.uint8)).save(root / name)
    return ensure(
        spec_of(read_mask), Options(root=root), list(masks_by_film), folder=root / "stores",
        size=8, fit="squash", structures=2, workers=1, max_bad=max_bad,
    )  # fmt: skip


GOOD = np.ones((2, 30, 20), dtype=bool)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (DataError("films: no mask m.png"), "films: no mask m.png"),
        (KeyError("x"), "KeyError: 'x'"),
        (None, "read_mask gave None (), not bool (2, H, W)"),
        (GOOD.astype(np.uint8), "read_mask gave uint8 (2, 30, 20), not bool (2, H, W)"),
        (GOOD[:1], "read_mask gave bool (1, 30, 20), not bool (2, H, W)"),
        (GOOD[0], "read_mask gave bool (30, 20), not bool (2, H, W)"),
        (GOOD[:, :0], "read_mask gave bool (2, 0, 20), not bool (2, H, W)"),
        (GOOD.swapaxes(1, 2), "its mask is 30 x 20, another shape than the film's 20 x 30"),
        (GOOD[:, :26], "its mask is 20 x 26, another shape than the film's 20 x 30"),
    ],
)
def test_a_bad_mask_makes_a_film_unreadable(tmp_path: Path, mask: Any, said: str) -> None:
    """The film is named with the reason, on a line; where that is allowed, both are black."""
    films = {"good.png": GOOD, "bad.png": mask}
    with pytest.raises(DataError, match=r"1 of 2 films.*'bad\.png'") as error:
        pack(tmp_path, films)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    store = pack(tmp_path, films, max_bad=1)
    assert dict(store.bad) == {"bad.png": said}
    assert store.rows(["good.png", "bad.png"]).tolist() == [0, -1]
    assert (store.images[:, 0, 0, 0].tolist(), store.masks[:, 0, 0, 0].tolist()) == (
        [77, 0],
        [3, 0],
    )


@given(st.integers(8, 3000), st.integers(8, 3000), st.floats(0.1, 1), st.booleans())
def test_rounded_sides_are_no_other_aspect(height: int, width: int, share: float, up: bool) -> None:
    """A mask of a film that was made smaller, rounded up or down, still fits it."""
    from ark_framework.decoding import Reader

    reader = Reader(
        root=Path(), channels=1, size=8, fit="pad", read_mask=lambda *_: GOOD, structures=1
    )
    round_ = np.ceil if up else np.floor
    small = [max(1, int(round_(side * share))) for side in (height, width)]
    mask = np.broadcast_to(np.True_, (1, *small))
    assert reader._checked_mask(mask, (height, width)) is mask
    whole = np.broadcast_to(np.True_, (1, height, width))
    assert reader._checked_mask(whole, tuple(small)) is whole


def test_masks_need_a_reader(tmp_path: Path) -> None:
    """A dataset that calls its labels masks and cannot read any is told so."""
    with pytest.raises(PluginError, match="needs read_mask"):
        ensure(
            spec_of(None), Options(root=tmp_path), ["a.png"], folder=tmp_path / "s", size=8,
            fit="pad", structures=2, workers=1, max_bad=1,
        )  # fmt: skip


def test_fingerprints() -> None:
    """Stores without masks keep their names; with them, the options count and the root does not."""

    def made(structures: int = 0, **options: Any) -> str:
        source = Source(
            spec=spec_of(None), options=Options(**{"root": Path("/one"), **options}),
            images=("a", "b"), size=8, fit="pad", structures=structures,
        )  # fmt: skip
        return source.fingerprint(np.array([3, 4]))

    assert made() == made(edition=1) == "a07a0713fdf7dda9"
    assert len({made(), made(1), made(2), made(2, edition=1)}) == 4
    assert made(2) == made(2, root=Path("/two"))


def test_label_columns_of_masks() -> None:
    """They may be left out and are 1 then; NaN is not drawn; another value is refused."""
    frame = pd.DataFrame({"image": ["x", "y", "z"], "split": "train", "b": [1, 0, np.nan]})
    table = validate(frame, dataset="d", schema=SCHEMA)
    assert table.frame["a"].tolist() == [1, 1, 1]
    assert table.drawn().tolist() == [[True, True], [True, True], [True, False]]
    assert (table.targets().shape, table.structures) == ((3, 0), 2)
    with pytest.raises(DataError, match=r"label 'b' of row 1 \(image 'y'\) is -1; a mask label is"):
        validate(frame.assign(b=[1, -1, 0]), dataset="d", schema=SCHEMA)


def test_undrawn_ribs(tmp_path: Path) -> None:
    """A rib that was not drawn is known as such, its plane is empty, and a digest sees it."""
    corpus, _ = opened("vindr-ribcxr", tmp_path, size=64)
    drawn = corpus.table.drawn()
    assert 0 < (~drawn).sum() < len(drawn)
    rows = np.arange(len(corpus.table))
    assert np.array_equal(corpus.masks(rows).any(axis=(2, 3)), drawn)
    frame = corpus.table.frame.copy()
    frame.loc[0, "R2"] = np.nan
    other = replace(corpus, table=replace(corpus.table, frame=frame))
    assert digest(corpus, rows) != digest(other, rows)


@pytest.mark.parametrize("name", MINIATURES)
def test_preview_and_stats(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Masks are drawn in color over films, and areas are those that the plugin's masks have."""
    monkeypatch.chdir(tmp_path)
    spec, options, data = miniature(name, tmp_path)
    told = {
        "plugins": [MINIATURES[name]],
        "tasks": [{"dataset": name}],
        "data": data,
        "store": {"workers": 1},
    }
    Path("run.yaml").write_text(json.dumps(told), encoding="utf-8")
    base = ["-c", "run.yaml", "--size", "32", "--store", "stores"]
    assert cli.run(["data", "preview", *base, "--limit", "3", "--out", "a.png"]) == 0
    with Image.open("a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert (np.ptp(pixels, axis=2) > 40).sum() > 200
    assert not Path("stores").exists()
    capfd.readouterr()
    assert cli.run(["data", "stats", *base, "--html", "a.html", "--json"]) == 0
    assert isinstance(spec.schema, LabelSchema)
    table = validate(spec.read(options), dataset=name, schema=spec.schema)
    found = json.loads(capfd.readouterr().out)["datasets"][name]
    assert spec.read_mask is not None
    shares = np.stack(
        [
            masks.fit(spec.read_mask(row, options), 32, "squash").mean(axis=(1, 2))
            for row in table.frame.itertuples()
        ]
    )
    for split in ("train", "test"):
        for label, column in zip(table.schema.labels, range(table.structures), strict=True):
            one = found[split]["structures"][label]
            drawn = table.drawn()[table.rows(split), column]
            area = shares[table.rows(split), column][drawn]
            assert (one["drawn"], one["empty"]) == (drawn.sum(), (area == 0).sum())
            there = area[area > 0]
            assert [one[key] for key in ("mean", "least", "largest")] == pytest.approx(
                [there.mean(), there.min(), there.max()]
            )
    html = Path("a.html").read_text("utf-8")
    assert f'<th rowspan="{len(found)}">{table.schema.labels[-1]}</th>' in html
    assert cli.run(["data", "stats", *base]) == 0
    assert f"{name}: areas" in capfd.readouterr().out


def test_areas_where_nothing_is(tmp_path: Path) -> None:
    """Unreadable and undrawn films are not counted, and an area of nothing is none."""
    from ark_framework.cli.areas import areas, layout

    half = np.broadcast_to(np.arange(20) < 10, GOOD.shape)
    store = pack(tmp_path, {"x.png": half, "y.png": ~GOOD, "bad.png": None}, max_bad=1)
    frame = {"image": ["x.png", "bad.png", "y.png"], "split": ["train", "train", None]}
    table = validate(pd.DataFrame(frame).assign(b=[np.nan, 1, 1]), dataset="d", schema=SCHEMA)
    found = areas(table, store)
    none = {"mean": None, "least": None, "largest": None}
    assert found["train"]["a"] == {
        "drawn": 1, "empty": 0, "mean": 0.5, "least": 0.5, "largest": 0.5,
    }  # fmt: skip
    assert found["train"]["b"] == {"drawn": 0, "empty": 0, **none}
    assert found["unused"]["b"] == {"drawn": 1, "empty": 1, **none}
    assert layout("d", found).row_count == 4


def test_views_carry_masks_as_films() -> None:
    """A mask moves as its film does, and brightness and gamma leave it alone."""
    views = ViewsConfig(size=32, photometry_p=1.0, gamma=(3.0, 4.0), brightness=0.4)
    planes = np.random.default_rng(0).random((4, 1, 8, 8)) < 0.5
    planes = np.kron(planes, np.ones((1, 1, 6, 6), dtype=bool))
    draws = draw(4, views, np.random.default_rng(1))
    carried = sheet._carry(planes, draws, views)
    plain = replace(draws, gain=np.ones(4), offset=np.zeros(4), gamma=np.ones(4))
    white = torch.from_numpy(planes.astype(np.uint8) * 255)
    for mine, film in zip(carried, make_views(white, plain, views), strict=True):
        assert np.array_equal(mine, film.numpy() >= 0.5)
    touched = make_views(white, draws, views)[0].numpy() >= 0.5
    assert not np.array_equal(carried[0], touched)
    assert 0.2 < carried[0].mean() < 0.8


def test_overlay() -> None:
    """Outside the film stays; fills mix where they overlap; outlines have the color itself."""
    film = np.full((40, 40), 100, dtype=np.uint8)
    planes = np.zeros((2, 40, 40), dtype=bool)
    planes[0, 5:25, 5:25], planes[1, 15:35, 15:35] = True, True
    found = overlay(film, planes)
    assert (found[~planes.any(axis=0)] == 100).all()
    for plane, paint in zip(planes, colors(2), strict=True):
        alone = plane & ~outline(plane) & (planes.sum(axis=0) == 1)
        assert (found[alone] == np.rint(100 * (1 - FILL) + paint * FILL)).all()
    assert (found[5, 5:25] == FIRST[0]).all()
    assert (found[34, 15:35] == FIRST[1]).all()
    both, one, other = found[20, 20], found[10, 10], found[30, 30]
    assert min(np.abs(both.astype(int) - each).max() for each in (one, other)) > 25
    assert np.array_equal(overlay(film, planes[:0]), np.repeat(film[..., None], 3, axis=2))
    told = np.array([[9, 8, 7], [1, 2, 3]], dtype=np.uint8)
    assert (overlay(film, planes, told)[5, 5:25] == told[0]).all()


def test_colors_differ() -> None:
    """Twenty structures have twenty colors that people can tell apart, and keep them."""
    paints = colors(20)
    assert paints.dtype == np.uint8
    lab = _lab(paints)
    apart = np.linalg.norm(lab[:, None] - lab, axis=2)
    assert apart[~np.eye(20, dtype=bool)].min() > 25
    assert all(np.array_equal(colors(count), paints[:count]) for count in range(21))


def test_lab() -> None:
    """White, mid grey, red and blue have the values that CIELAB's tables give them."""
    found = _lab(np.array([[255, 255, 255], [119, 119, 119], [255, 0, 0], [0, 0, 255]]))
    wanted = [(100, 0, 0), (50.03, 0, 0), (53.24, 80.09, 67.20), (32.30, 79.19, -107.86)]
    assert found == pytest.approx(np.array(wanted), abs=0.02)
