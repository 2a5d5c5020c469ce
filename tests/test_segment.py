"""Segmentation: the encoder is the model's own, masks and films share their geometry, always."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ark_framework import config as configuration
from ark_framework import masks as bits
from ark_framework import registry
from ark_framework.builtin.losses import SMOOTH
from ark_framework.config import RuntimeConfig, ViewsConfig
from ark_framework.corpus import Corpus, open_corpus
from ark_framework.errors import CheckpointError, ConfigError, DataError, Interrupted
from ark_framework.overlap import film_dice, film_scores
from ark_framework.runtime import Runtime, open_runtime
from ark_framework.specs import LabelSchema
from ark_framework.transfer import segmentation, segmenter
from ark_framework.transfer.candidate import Candidate, open_candidate
from ark_framework.transfer.mask_films import MaskFilms
from ark_framework.transfer.protocol import PUBLISHED_MASKS, SegmentConfig
from ark_framework.transfer.segment import Segmented, score, segment
from ark_framework.transfer.settings import parse
from ark_framework.transfer.splits import Split, official
from ark_framework.transfer.structures import Structures, check, choose

RUNTIME = open_runtime(RuntimeConfig(device="cpu", threads=1))
SIZE = 32
SWIN = {"embed_dim": 16, "depths": [1, 1, 2, 1], "num_heads": [1, 2, 4, 8]}
JSRT = LabelSchema(
    name="jsrt", kind="mask", labels=("left_lung", "right_lung", "heart", "left_clavicle")
)


@pytest.fixture(scope="module")
def organs(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """160 phantom films with the masks of five organs."""
    plugins = registry.load(("ark-phantom",))
    told: dict[str, Any] = {
        "plugins": ["ark-phantom"],
        "data": {"phantom-organs": {"films": 160, "size": 64}},
        "store": {"folder": str(tmp_path_factory.mktemp("store")), "size": SIZE, "workers": 1},
        "views": {"size": SIZE},
    }
    spec = plugins.dataset("phantom-organs")
    return open_corpus(spec, plugins, configuration.parse(told), roots={})


def loaded(candidate: Candidate) -> Candidate:
    """Turn a random candidate into one with weights, as a run or an import has them."""
    return replace(candidate, weights=candidate.model(seed=5).state_dict())


def timm(name: str, size: int, **kwargs: Any) -> Candidate:
    made = open_candidate(f"random:{name}", size=size)
    return replace(made, blueprint=replace(made.plan, options={"name": name, "kwargs": kwargs}))


def swin(size: int = 64) -> Candidate:
    return timm("swin_tiny_patch4_window7_224", size, img_size=size, **SWIN)


def settings(**changes: Any) -> SegmentConfig:
    brief = {"epochs": 2, "batch_size": 16, "width": 16, "views": {"size": SIZE}}
    return parse({"segment": configuration.merge(brief, changes)}, models=False).segment


def every(corpus: Corpus) -> Structures:
    return choose((), corpus.name, corpus.schema)[0]


def trained(
    corpus: Corpus,
    folder: Path,
    *,
    config: SegmentConfig | None = None,
    split: Split | None = None,
    structures: Structures | None = None,
    runtime: Runtime = RUNTIME,
    stop: threading.Event | None = None,
) -> tuple[segmenter.Segmenter, Segmented]:
    told, found = config or settings(), structures or every(corpus)
    made = segmenter.build(
        open_candidate("random:tiny", size=SIZE), found.names, size=None, width=told.width
    )
    done = segment(
        made.network,
        corpus,
        split or official(corpus),
        found,
        told,
        seed=0,
        folder=folder,
        runtime=runtime,
        stop=stop,
    )
    return made, done


PYRAMIDS = {
    "tiny": (lambda: open_candidate("random:tiny", size=64), 3),
    "swin": (swin, 4),
    "convnext": (lambda: timm("convnext_atto", 64, dims=[8, 16, 32, 64], depths=[1] * 4), 4),
    "resnet": (lambda: timm("resnet18", 64), 4),
    "maxvit": (lambda: timm("maxvit_rmlp_pico_rw_256", 64, img_size=64, embed_dim=[32] * 4), 4),
}


@pytest.mark.parametrize("kind", PYRAMIDS)
def test_the_stages_are_the_encoders(kind: str) -> None:
    """Inside the network a film has the encoder's own maps; a changed weight shows."""
    make, count = PYRAMIDS[kind]
    candidate, said = loaded(make()), []
    made = segmenter.build(candidate, ("a", "b"), size=None, width=8, say=said.append)
    model, film = candidate.model(), torch.rand(2, 1, 64, 64)
    network = made.network.eval()
    with torch.no_grad():
        own = model.eval().maps(film)
        stages = network.stages(film)
        assert [each.shape[-1] for each in stages] == [16, 8, 4, 2][:count]
        for stage, theirs in zip(stages, own[-count:], strict=True):
            torch.testing.assert_close(stage, theirs, atol=1e-5, rtol=0)
        tensors = model.backbone.state_dict()
        for name, each in network.backbone.state_dict().items():
            assert each.equal(tensors[name]), name
        assert said == [f"{candidate.name}: all {len(tensors)} tensors of the encoder "
                        f"{made.blueprint.options.get('name', 'tiny')} loaded"]  # fmt: skip
        before = network(film)
        changed = next(p for p in network.backbone.parameters() if p.ndim == 4)
        changed.add_(torch.randn_like(changed))
        assert not network.stages(film)[0].allclose(own[-count], atol=1e-3)
        assert not network(film).allclose(before, atol=1e-4)


def test_a_missing_tensor_is_no_encoder() -> None:
    """Weights that are not all there are refused rather than left as they were drawn."""
    candidate = loaded(swin())
    assert candidate.weights is not None
    name = next(name for name in candidate.weights if name.startswith("backbone."))
    less = {key: each for key, each in candidate.weights.items() if key != name}
    with pytest.raises(RuntimeError, match=re.escape(name.removeprefix("backbone."))):
        segmenter.build(replace(candidate, weights=less), ("a",), size=None, width=8)


def test_an_encoder_without_a_pyramid_is_refused() -> None:
    """A plain ViT is named, with the strides that it has and what would fit."""
    vit = timm("vit_tiny_patch16_224", 32, img_size=32, embed_dim=16, depth=2, num_heads=1)
    with pytest.raises(ConfigError, match=r"vit_tiny.*maps are at 16; those of swin, .*resnet"):
        segmenter.build(vit, ("a",), size=None, width=8)


@pytest.mark.parametrize("size", [32, 96])
def test_sizes_other_than_in_pretraining(size: int) -> None:
    """A Swin pretrained at 64 takes films of another size, with every weight that has no size."""
    candidate = loaded(swin(64))
    made = segmenter.build(candidate, ("a",), size=size, width=8)
    with torch.no_grad():
        assert made.network(torch.rand(2, 1, size, size)).shape == (2, 1, size, size)
    tensors = candidate.model().backbone.state_dict()
    same = {
        name
        for name, each in made.network.backbone.state_dict().items()
        if each.shape == tensors[name].shape and each.equal(tensors[name])
    }
    # A window is cut where it is larger than the map; what is larger keeps every weight.
    assert size < 64 or same == {*tensors}
    assert all("relative_position_bias_table" in name for name in {*tensors} - same)


def test_a_kept_network_is_the_same(tmp_path: Path) -> None:
    """What is written and loaded gives the same probabilities; a damaged folder is refused."""
    made = segmenter.build(loaded(swin(64)), ("a", "b"), size=32, width=8, seed=3)
    segmenter.save(tmp_path, made, made.network.state_dict())
    film = torch.rand(3, 1, 32, 32)
    again = segmenter.load(tmp_path)
    assert again.segment(film).equal(made.segment(film))
    assert (again.structures, again.preprocessing.size) == (("a", "b"), 32)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        segmenter.load(tmp_path)


def test_masks_and_films_share_their_geometry(organs: Corpus) -> None:
    """Films that show a mask and the mask itself come out alike under any crop, turn and mirror."""
    rows, structures = organs.rows("train")[:24], choose(("heart",), "organs", organs.schema)[0]
    drawn = structures.of(organs.masks(rows))

    class Shown:
        table, name = organs.table, organs.name

        def images(self, chosen: np.ndarray) -> np.ndarray:
            return structures.of(organs.masks(chosen)).astype(np.uint8) * 255

        def masks(self, chosen: np.ndarray) -> np.ndarray:
            return organs.masks(chosen)

    views = ViewsConfig(size=SIZE, scale=(0.4, 1.0), affine_p=1.0, photometry_p=0.0)
    films = MaskFilms(
        Shown(),  # type: ignore[arg-type]
        rows,
        structures,
        batch_size=24,
        views=views,
        flip=0.5,
        seed=1,
        device=torch.device("cpu"),
    )
    view, target = films.batch(0)
    assert ((view >= 0.5).float() == target).float().mean() > 0.9999
    assert (view[:, 0] >= 0.5).numpy().tolist() != drawn[:, 0].tolist()


def test_a_batch_never_has_one_film(organs: Corpus) -> None:
    """Any number of films from two on comes in batches of two or more, each film once."""
    rows = organs.rows("train")
    for count, batch in ((2, 1), (3, 2), (5, 4), (9, 8), (17, 4)):
        films = MaskFilms(
            organs,
            rows[:count],
            every(organs),
            batch_size=batch,
            views=ViewsConfig(size=SIZE),
            flip=0.0,
            seed=0,
            device=torch.device("cpu"),
        )
        sizes = [len(films.order.chosen(step)) for step in range(films.order.steps)]
        assert sum(sizes) == count
        assert min(sizes) >= 2
    with pytest.raises(DataError, match="1 training films with masks; at least 2"):
        MaskFilms(
            organs,
            rows[:1],
            every(organs),
            batch_size=4,
            views=ViewsConfig(size=SIZE),
            flip=0.0,
            seed=0,
            device=torch.device("cpu"),
        )


def test_the_dice_loss() -> None:
    """Film by film and structure by structure it is 1 - (2 |AB| + 1) / (|A| + |B| + 1)."""
    schema = LabelSchema(name="x", kind="mask", labels=("a", "b"))
    dice = registry.load(()).loss("dice", kind="mask").build(schema)
    logits, target = torch.randn(3, 2, 5, 7), (torch.rand(3, 2, 5, 7) > 0.5).float()
    target[0, 0], target[2, 1] = 0.0, torch.nan
    found = dice(logits, target)
    for film in range(3):
        for k in range(2):
            p, t = logits[film, k].sigmoid().numpy(), target[film, k].numpy()
            expected = 1 - (2 * (p * t).sum() + SMOOTH) / (p.sum() + t.sum() + SMOOTH)
            assert float(found[film, k]) == pytest.approx(0 if np.isnan(t).any() else expected)


def test_validations_dice_is_the_scores() -> None:
    """What validation calls Dice is what the scores call Dice, empty and undrawn masks included."""
    rng = np.random.default_rng(0)
    found, true = rng.random((6, 3, 8, 8)) > 0.6, rng.random((6, 3, 8, 8)) > 0.5
    found[0, 0] = true[0, 0] = False
    found[1, 1] = False
    drawn = np.ones((6, 3), dtype=bool)
    drawn[2, 2] = False
    mine = film_dice(found, true, drawn)
    np.testing.assert_array_equal(mine, film_scores(found, true, drawn).dice)
    assert (mine[0, 0], mine[1, 1], np.isnan(mine[2, 2])) == (1.0, 0.0, True)


@pytest.mark.parametrize("loss", ["dice", "bce-dice"])
def test_it_learns(organs: Corpus, tmp_path: Path, loss: str) -> None:
    """Lungs of drawn films are found far better than by the mean mask, with any built-in loss."""
    lungs = choose(("left lung+right lung",), "organs", organs.schema)[0]
    config = settings(epochs=12, loss=loss, optim={"lr": 0.003})
    _, done = trained(organs, tmp_path, config=config, structures=lungs)
    split = official(organs)
    found = score(done.masks, organs, split.test, lungs).dice.mean()
    mean = lungs.of(organs.masks(split.train)).mean(axis=0) >= 0.5
    guess = np.repeat(mean[None], len(split.test), axis=0)
    drawn = np.ones((len(split.test), 1), dtype=bool)
    plain = film_scores(guess, lungs.of(organs.masks(split.test)), drawn).dice.mean()
    assert found > max(0.85, plain + 0.1)
    assert done.val_curve[-1].score == pytest.approx(done.val_curve[-1].score, abs=1)
    assert done.val_curve[done.best_epoch - 1].loss == min(each.loss for each in done.val_curve)


def test_interrupted_and_resumed_is_the_same(organs: Corpus, tmp_path: Path) -> None:
    """Stopped after any step, the same call ends with the very masks and curve."""
    _, whole = trained(organs, tmp_path / "whole")
    stop, steps = threading.Event(), []
    loss = segmentation.Segmentation.loss

    def counted(self: segmentation.Segmentation, step: int) -> torch.Tensor:
        steps.append(step)
        if len(steps) == 4:
            stop.set()
        return loss(self, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segmentation.Segmentation, "loss", counted)
        with pytest.raises(Interrupted, match="stopped at step 4"):
            trained(organs, tmp_path / "parts", stop=stop)
        _, done = trained(organs, tmp_path / "parts")
    assert steps == list(range(done.steps))
    assert done.masks.tobytes() == whole.masks.tobytes()
    assert done.val_curve == whole.val_curve
    with pytest.raises(ConfigError, match="begun with other optim"):
        trained(organs, tmp_path / "parts", config=settings(optim={"lr": 0.1}))


def test_validation_is_clean(organs: Corpus) -> None:
    """Validation films are seen whole, twice the same, and no test film is read before."""
    split, lungs = official(organs), every(organs)
    made = segmenter.build(
        open_candidate("random:tiny", size=SIZE), lungs.names, size=None, width=8
    )
    asked: list[int] = []

    class Watched:
        table, name, schema, store = organs.table, organs.name, organs.schema, organs.store

        def images(self, rows: np.ndarray) -> np.ndarray:
            asked.extend(rows.tolist())
            return organs.images(rows)

        def masks(self, rows: np.ndarray) -> np.ndarray:
            asked.extend(rows.tolist())
            return organs.masks(rows)

    objective = segmentation.Segmentation(
        made.network, Watched(), split, lungs, settings(), 0, RUNTIME  # type: ignore[arg-type]
    )  # fmt: skip
    objective.loss(0)
    first = objective.validate()
    assert first == objective.validate()
    assert not {*asked} & {*split.test.tolist()}
    with torch.no_grad():
        film = torch.from_numpy(organs.images(split.val)).float() / 255
        found = made.network.eval()(film).sigmoid() >= 0.5
    true = lungs.of(organs.masks(split.val))
    scores = film_scores(found.numpy(), true, np.ones((len(true), 5), dtype=bool))
    assert first[1] == pytest.approx(scores.dice.mean())


def test_what_is_not_drawn_has_no_say(organs: Corpus, tmp_path: Path) -> None:
    """Of a structure that is not drawn on a film neither training nor scores see the pixels."""
    frame = organs.table.frame.copy()
    left = frame.index % 2 == 0
    frame.loc[left, "heart"] = np.nan
    halved = replace(organs, table=replace(organs.table, frame=frame))

    class Scribbled(Corpus):
        def masks(self, rows: np.ndarray) -> np.ndarray:
            found = organs.masks(rows)
            found[np.isin(rows, np.flatnonzero(left)), 2] ^= True
            return found

    scribbled = Scribbled(**{name: getattr(halved, name) for name in halved.__dataclass_fields__})
    _, plain = trained(halved, tmp_path / "a")
    _, other = trained(scribbled, tmp_path / "b")
    assert plain.masks.tobytes() == other.masks.tobytes()
    rows = official(halved).test
    one, two = (score(plain.masks, each, rows, every(halved)) for each in (halved, scribbled))
    np.testing.assert_array_equal(one.dice, two.dice)
    assert np.isnan(one.dice[:, 2]).tolist() == left[rows].tolist()


def test_bf16(organs: Corpus, tmp_path: Path) -> None:
    """Half the bits train a network whose masks are finite and no empty film."""
    runtime = replace(RUNTIME, precision="bf16")
    _, done = trained(organs, tmp_path, config=settings(epochs=1), runtime=runtime)
    assert done.masks.any()


def test_structures_are_chosen_and_united() -> None:
    """JSRT's three tasks of the paper, a network of two masks, and what another dataset is told."""
    told = ("left_lung+right_lung", "heart", "jsrt:lungs=left_lung+right_lung,heart", "x:a")
    lungs, heart, both = choose(told, "jsrt", JSRT)
    assert (lungs.names, lungs.parts) == (("left_lung+right_lung",), ((0, 1),))
    assert (heart.names, heart.parts) == (("heart",), ((2,),))
    assert (both.title, both.names, both.parts) == (
        "lungs,heart",
        ("lungs", "heart"),
        ((0, 1), (2,)),
    )
    masks = np.zeros((2, 4, 2, 2), dtype=bool)
    masks[0, 0, 0], masks[0, 1, :, 0], masks[1, 2] = True, True, True
    assert both.of(masks)[0, 0].tolist() == [[True, True], [True, False]]
    assert both.of(masks)[1].any(axis=(1, 2)).tolist() == [False, True]
    drawn = np.array([[True, False, True, True], [True, True, False, True]])
    assert both.drawn(drawn).tolist() == [[False, True], [True, False]]
    assert choose((), "jsrt", JSRT)[0].names == JSRT.labels


@pytest.mark.parametrize(
    ("told", "match"),
    [
        ("left_lungs", "no structure 'left_lungs'; did you mean 'left_lung'"),
        ("heart,heart", "called alike"),
        ("heart+", "no structure ''"),
    ],
)
def test_wrong_structures_are_refused(told: str, match: str) -> None:
    """One line names what is wrong."""
    with pytest.raises(ConfigError, match=match):
        choose((told,), "jsrt", JSRT)
    with pytest.raises(ConfigError, match="no mask dataset 'jrst'; there are jsrt"):
        check(("jrst:heart",), ["jsrt"])


def test_fewer_films_are_nested(organs: Corpus) -> None:
    """A draw holds the smaller ones and follows its seed; the test films stay."""
    split, lungs = official(organs), every(organs)
    few, more, other = (
        segmentation.fewer(organs, split, lungs, count, seed=seed)
        for count, seed in ((4, 0), (9, 0), (9, 1))
    )
    assert (len(few.train), len(more.train), len(few.val)) == (4, 9, 0)
    assert {*few.train} < {*more.train} < {*split.train}
    assert {*other.train} != {*more.train}
    assert few.test.tolist() == split.test.tolist()


def test_the_published_protocol_is_a_protocol() -> None:
    """Its settings are accepted: plain momentum at 0.05, a ramp over 20 of 500 epochs."""
    told = parse({"segment": dict(PUBLISHED_MASKS)}, models=False).segment
    assert (told.optim.lr, told.optim.nesterov, told.warmup * told.epochs) == (0.05, False, 20)


def test_masks_come_out_packed(organs: Corpus, tmp_path: Path) -> None:
    """The kept bits are the network's own masks of the test films, thresholded at one half."""
    made, done = trained(organs, tmp_path)
    rows = official(organs).test
    found = made.segment(torch.from_numpy(organs.images(rows)).float() / 255).numpy() >= 0.5
    assert bits.unpack(done.masks, 5).tolist() == found.tolist()


@pytest.mark.parametrize(
    ("fit", "expected"),
    [("squash", (400 / SIZE, 300 / SIZE)), ("pad", (400 / SIZE,) * 2), ("crop", (300 / SIZE,) * 2)],
)
def test_distances_in_mm(organs: Corpus, fit: str, expected: tuple[float, float]) -> None:
    """A film of 400 x 300 mm: what a stored pixel is down and across depends on the fit."""
    spec = replace(organs.spec, extent=lambda row, options: (400.0, 300.0))
    known = replace(organs, spec=spec, store=replace(organs.store, fit=fit))
    spacing = known.spacing(np.arange(3))
    assert spacing is not None
    assert spacing.tolist() == [list(expected)] * 3
    assert organs.spacing(np.arange(3)) is None
    lost = replace(known, spec=replace(spec, extent=lambda row, options: (np.nan, 300.0)))
    assert lost.spacing(np.arange(3)) is None
    masks = bits.pack(organs.masks(np.arange(3)) ^ True)
    one, two = (score(masks, each, np.arange(3), every(organs)) for each in (organs, known))
    if fit != "squash":
        np.testing.assert_allclose(two.hd95, one.hd95 * expected[0])
