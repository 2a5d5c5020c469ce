"""Published weights in, models for others out, and both through ``ark_framework.load``."""

from __future__ import annotations

import json
import os
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

import ark_framework
from ark_framework import bundle, exposure, registry
from ark_framework.blueprint import Blueprint, Preprocessing, TaskHead
from ark_framework.cli import run
from ark_framework.errors import CheckpointError, ConfigError, DataError
from ark_framework.launch import train
from ark_framework.model import IMAGENET_MEAN, IMAGENET_STD, ArkModel
from ark_framework.published import import_file, swin
from ark_framework.published.heads import SIX, name_heads
from ark_framework.session import RunResult
from ark_framework.views import center

SWIN = {
    "img_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [2, 1, 3], "num_heads": [1, 2, 4],
    "window_size": 4,
}  # fmt: skip
PLUGINS = [f"ark-{head.name}" for head in SIX]


def references() -> list[Path]:
    """The weight files named by ARK_IMPORT_REFERENCE, or those beside the real data."""
    data = os.environ.get("ARK_REAL_DATA")
    default = Path(data).parent / "reference" if data else None
    given = os.environ.get("ARK_IMPORT_REFERENCE")
    folder = Path(given) if given else default
    return sorted(folder.glob("*.pth.tar")) if folder else []


@pytest.mark.skipif(not references(), reason="no weights: set ARK_IMPORT_REFERENCE to a folder")
@pytest.mark.parametrize("path", references(), ids=lambda path: path.name)
def test_reference_outputs(path: Path, tmp_path: Path) -> None:
    """Features, embedding and every head's outputs are the published ones to 1e-5."""
    assert run(["import", str(path), "--out", str(tmp_path / "model")]) == 0
    model = ark_framework.load(tmp_path / "model")
    with np.load(path.with_name(path.name.replace(".pth.tar", ".npz")), allow_pickle=False) as file:
        arrays = dict(file)
    mean, std = (np.array(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    images = arrays["images"].astype(np.float64) * std + mean  # what is normalized inside
    pairs = [
        (model.embed(images, projected=False), arrays["features"]),
        (model.embed(images), arrays["embedding"]),
    ]
    features = model.model.encode(torch.from_numpy(images).float())
    predicted = model.predict(images)
    assert len(model.tasks) == sum(name.startswith("head_") for name in arrays)
    for index, task in enumerate(model.tasks):
        logits = arrays[f"head_{index}"]
        raised = np.exp(logits.astype(np.float64))
        shares = raised / raised.sum(axis=1, keepdims=True)
        wanted = shares if task.kind == "multiclass" else raised / (1 + raised)
        pairs += [
            (model.model.classify(task.name, features).numpy(), logits),
            (predicted[task.name].to_numpy(), wanted),
        ]
    for actual, expected in pairs:
        assert actual.shape == expected.shape
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)
    _timm_agrees(tmp_path / "model", model, images)


def _timm_agrees(folder: Path, model: Any, images: np.ndarray) -> None:
    """The backbone alone, as timm loads it, gives the same pooled features."""
    backbone = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    mean, std = (torch.tensor(each)[:, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
    views = (torch.as_tensor(images).float() - mean) / std
    with torch.no_grad():
        pooled = backbone(views).numpy()
    expected = model.embed(images, projected=False)
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=1e-5)


def test_the_published_labels_are_the_plugins() -> None:
    """Each of the six heads has the labels, order and kind that its dataset's plugin gives it."""
    known = registry.load(PLUGINS)
    for head in SIX:
        spec = known.dataset(head.name)
        schema = known.schema_of(spec, spec.options.model_construct(root=Path("x")))
        assert (schema.labels, schema.kind) == (head.labels, head.kind), head.name


def _model(sizes: tuple[int, ...], projector: Any = "mlp") -> tuple[ArkModel, Blueprint]:
    tasks = tuple(
        TaskHead(name=f"t{i}", kind="multilabel", labels=tuple(f"l{j}" for j in range(size)))
        for i, size in enumerate(sizes)
    )
    blueprint = Blueprint(
        backbone="timm",
        options={"name": "swin_tiny_patch4_window7_224", "kwargs": SWIN},
        projector=projector,
        features=12,
        tasks=tasks,
        preprocessing=Preprocessing(size=64, resize=64, fit="squash", normalize="imagenet"),
    )
    return blueprint.build(), blueprint


def _published(model: ArkModel, *, masks: bool = True) -> dict[str, torch.Tensor]:
    """A model's tensors under the names of timm 0.5.4, with all that an importer must ignore."""
    state = {}
    for name, tensor in model.state_dict().items():
        old = re.sub(r"^heads\.t(\d+)", r"omni_heads.\1", name).removeprefix("backbone.model.")
        for stage in (1, 2):
            old = old.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        state[old] = tensor
    for name, buffer in model.backbone.model.named_buffers():
        if masks or not name.endswith("attn_mask"):
            state[name] = buffer
    return {**state, "head.weight": torch.zeros(1000, 32), "head.bias": torch.zeros(1000)}


def _same(one: ArkModel, other: ArkModel, names: dict[str, str]) -> None:
    expected = one.state_dict()
    for name, tensor in other.state_dict().items():
        task = name.split(".")[1]
        kept = name.replace(f"heads.{task}.", f"heads.{names.get(task, task)}.")
        assert torch.equal(tensor, expected[kept]), name


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapper", [None, "teacher", "state_dict", "model"])
@pytest.mark.parametrize("projector", ["linear", "mlp"])
def test_layouts(tmp_path: Path, prefix: str, wrapper: str | None, projector: str) -> None:
    """Every layout gives every tensor back; beside a teacher the student is left alone."""
    model, _ = _model((2, 3), projector)
    state: dict[str, Any] = {f"{prefix}{name}": each for name, each in _published(model).items()}
    if wrapper:
        state = {wrapper: state, "epoch": 3, "lossMIN": [np.float64(0.2), np.float32(0.1)]}
    if wrapper == "teacher":
        state["state_dict"] = {name: each + 1 for name, each in state["teacher"].items()}
    torch.save(state, tmp_path / "file.pth.tar")
    imported = import_file(tmp_path / "file.pth.tar")
    _same(model, imported.model, {"head_0": "t0", "head_1": "t1"})
    kwargs = imported.blueprint.options["kwargs"]
    assert {name: kwargs[name] for name in SWIN} == SWIN
    assert imported.blueprint.projector == projector
    assert {"4 attn_mask", "2 ImageNet classifier"} & set(imported.ignored)
    assert ("'epoch'" in imported.ignored) == (wrapper is not None)


def test_inits_without_heads(tmp_path: Path) -> None:
    """Current timm's names and SimMIM's prefix are read; there is then no projector and no head."""
    model, _ = _model((), "none")
    now = {name.removeprefix("backbone.model."): t for name, t in model.state_dict().items()}
    old = {name: t for name, t in _published(model).items() if not name.startswith("head.")}
    simmim = {f"encoder.{name}": t for name, t in old.items()}
    simmim |= {"encoder.mask_token": torch.zeros(1), "decoder.0.weight": torch.zeros(1)}
    for state in (now, {"model": old}, {"model": simmim}):
        torch.save(state, tmp_path / "file.pth")
        imported = import_file(tmp_path / "file.pth", side=64)
        _same(model, imported.model, {})
        assert imported.blueprint.tasks == ()


def test_the_side_is_found(tmp_path: Path) -> None:
    """Without masks the side is assumed and said so; ``side`` overrides it."""
    model, _ = _model((2,))
    torch.save(_published(model, masks=False), tmp_path / "file.pth")
    imported = import_file(tmp_path / "file.pth")
    assert "assumed" in " ".join(imported.report())
    assert imported.blueprint.preprocessing.size == 64  # window 4 x patch 4 x 2 x 2
    assert import_file(tmp_path / "file.pth", side=128).blueprint.preprocessing.size == 128


@pytest.mark.parametrize(
    ("name", "side", "width", "window"),
    [
        ("swin_base_patch4_window7_224", 224, 128, 7),
        ("swin_large_patch4_window12_384", 768, 192, 12),
    ],
)
def test_the_released_sizes(name: str, side: int, width: int, window: int) -> None:
    """Swin-B 224 and Swin-L 768 are recognized from shapes alone, masks by the formula."""
    with torch.device("meta"):
        model = timm.create_model(name, img_size=side, num_classes=0)
    state = dict(model.state_dict())
    count = (side // 4 // window) ** 2
    state["layers.0.blocks.1.attn_mask"] = torch.empty(count, window**2, window**2, device="meta")
    found = swin.recognize(state, Path("x"))
    assert (found.side, found.width, found.window, found.sized) == (side, width, window, True)
    assert found.depths == (2, 2, 18, 2)
    assert found.attention_heads == tuple(width // 32 * 2**stage for stage in range(4))


class _Planted:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, zipped: bool
) -> None:
    """A pickle that carries code ends in one line, and the code did not run."""
    model, _ = _model((2,))
    path, mark = tmp_path / "file.pth", tmp_path / "ran"
    content = {"teacher": _published(model), "lossMIN": [np.float64(0.1)], "x": _Planted(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert run(["import", str(path), "--out", str(tmp_path / "out")]) == CheckpointError.exit_code
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "may carry code" in told
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    torch.load(path, weights_only=False)  # it would have run
    assert mark.is_dir()


def test_numbers_of_older_numpy(tmp_path: Path) -> None:
    """A scalar pickled by NumPy 1, as in the published files, does not stop the import."""
    model, _ = _model((2,))
    path = tmp_path / "file.pth.tar"
    content = {"lossMIN": [np.float64(0.1), np.int64(3)], "teacher": _published(model)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    now = path.read_bytes()
    before = now.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    assert before != now
    path.write_bytes(before)
    _same(model, import_file(path).model, {"head_0": "t0"})


def test_damage_is_one_line(tmp_path: Path) -> None:
    """An absent, empty, cut, foreign or incomplete file is a CheckpointError."""
    model, _ = _model((2,))
    path = tmp_path / "file.pth"
    with pytest.raises(CheckpointError, match="no file"):
        import_file(path)
    torch.save(_published(model), path)
    whole = path.read_bytes()
    for damaged in (b"", b"text", whole[: len(whole) // 2], pickle.dumps({"a": 1})):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as caught:
            import_file(path)
        assert "\n" not in str(caught.value)
    state = _published(model)
    for lost in ("patch_embed.proj.weight", "layers.1.blocks.0.mlp.fc1.bias", "omni_heads.0.bias"):
        torch.save({name: each for name, each in state.items() if name != lost}, path)
        with pytest.raises(CheckpointError):
            import_file(path)


def test_head_names() -> None:
    """Six heads of the published sizes are named; others by ``--heads`` or not at all."""
    assert name_heads([14, 14, 14, 3, 6, 1]) == SIX
    five = name_heads([14, 14, 3, 6, 1])
    assert [(head.name, head.named) for head in five] == [(f"head_{i}", False) for i in range(5)]
    given = name_heads([3, 2, 5], "rsna=3, mine=Nodule|Mass, other=5")
    assert given[0] == SIX[3]
    assert (given[1].labels, given[1].named) == (("Nodule", "Mass"), True)
    assert (given[2].name, given[2].named) == ("other", False)
    for wrong in ("rsna=3", "rsna", "a=2,a=3", "a.b=3", "a=x||y,b=2", "rsna=3,mine=3"):
        with pytest.raises(ConfigError, match="--heads"):
            name_heads([3, 2], wrong)


@pytest.fixture(scope="module")
def backbones() -> dict[str, dict[str, Any]]:
    kwargs = {**SWIN, "img_size": 24, "patch_size": 2, "window_size": 3, "depths": [1, 1]}
    kwargs["num_heads"] = [1, 2]
    swin = {"name": "swin_tiny_patch4_window7_224", "kwargs": kwargs}
    return {
        "tiny": {"backbone": "tiny", "options": {"width": 4}},
        "timm": {"backbone": "timm", "options": swin},
    }


@pytest.mark.parametrize("backbone", ["tiny", "timm"])
def test_a_run_goes_out_and_comes_back(
    tmp_path: Path,
    small: Callable[..., dict[str, Any]],
    backbones: dict[str, dict[str, Any]],
    backbone: str,
) -> None:
    """Run and export predict what the run's own test scoring saved; timm reads the backbone."""
    config = small(cycles=1)
    config["model"] = {**config["model"], **backbones[backbone]}
    result = train(config, out=tmp_path / "run")
    assert run(["export", str(result.folder), "--out", str(tmp_path / "model")]) == 0
    ran, exported = (ark_framework.load(tmp_path / name) for name in ("run", "model"))
    for task in result.prepared.plan.tasks:
        films, saved = _test_films(result, task.name)
        columns = [f"teacher:{label}" for label in task.labels]
        for model in (ran, exported):
            found = model.predict(films)[task.name]
            assert list(found.columns) == list(task.labels)
            np.testing.assert_allclose(found.to_numpy(), saved[columns], rtol=0, atol=1e-6)
        assert np.array_equal(ran.embed(films), exported.embed(films))
    assert len({file.stat().st_mode for file in (tmp_path / "model").iterdir()}) == 1
    kept = exposure.load(tmp_path / "model")
    assert kept.complete
    assert {part.dataset for part in kept.parts} == set(result.prepared.corpora)
    if backbone == "timm":
        _timm_agrees(tmp_path / "model", exported, np.repeat(films, 3, axis=1))


def _test_films(result: RunResult, task: str) -> tuple[np.ndarray, pd.DataFrame]:
    corpus = result.prepared.corpora[task]
    films = torch.from_numpy(corpus.images(corpus.rows("test")))
    saved = pd.read_csv(result.folder / "predictions" / f"{task}-test.csv")
    return center(films, result.prepared.config.views.size).numpy(), saved


def test_files_pil_images_and_arrays_agree(tmp_path: Path) -> None:
    """A film gives one answer however it is handed over, and always the same one."""
    model, blueprint = _model((2,))
    blueprint = replace(blueprint, preprocessing=replace(blueprint.preprocessing, resize=72))
    bundle.write(tmp_path / "m", model, blueprint, card="m")
    loaded = ark_framework.load(tmp_path / "m")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 72, 72), dtype=np.uint8)
    files = []
    for index, film in enumerate(pixels):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(film).save(files[-1])
    arrays = pixels[:, None, 4:68, 4:68] / np.float32(255)
    expected = loaded.embed(arrays)
    loaded.model.train()
    for images in (files, [str(file) for file in files], [Image.open(f) for f in files],
                   np.repeat(arrays, 3, axis=1)):  # fmt: skip
        np.testing.assert_allclose(loaded.embed(images), expected, rtol=0, atol=1e-6)
    assert loaded.embed([]).shape == (0, 12)


@pytest.mark.parametrize(
    ("images", "told"),
    [
        (np.zeros((2, 1, 64, 60), np.float32), "64, 64"),
        (np.zeros((64, 64), np.float32), "64, 64"),
        (np.zeros((2, 1, 64, 64), np.uint8), "floats"),
        (np.full((2, 1, 64, 64), 200.0), "0..1"),
        (np.full((2, 1, 64, 64), np.nan), "0..1"),
        ("film.png", "a list"),
    ],
)
def test_wrong_images_are_refused(images: Any, told: str) -> None:
    """What would silently give nonsense is a DataError."""
    from ark_framework.pretrained import Pretrained

    with pytest.raises(DataError, match=told):
        Pretrained(*_model((2,))).embed(images)


def test_nothing_of_a_credentialed_dataset_leaves(tmp_path: Path) -> None:
    """An export keeps no trace of films under a data-use agreement, and says it is incomplete."""
    part = exposure.Part(
        dataset="secret",
        access="credentialed",
        key=b"k" * 16,
        films=np.arange(3, dtype=np.uint64),
        patients=np.arange(3, dtype=np.uint64),
        prints=np.zeros((3, 32), np.uint8),
        film_spaces=(),
        patient_spaces=(),
    )
    trained = exposure.Exposure(parts=(part, replace(part, dataset="free", access="open")),
                                complete=True)  # fmt: skip
    model, blueprint = _model((2,))
    bundle.write(tmp_path / "m", model, blueprint, card="Research use only", trained=trained)
    kept = exposure.load(tmp_path / "m")
    assert [each.dataset for each in kept.parts] == ["free"]
    assert not kept.complete
    assert "Research use only" in (tmp_path / "m" / "README.md").read_text("utf-8")


def test_a_damaged_folder_is_one_line(tmp_path: Path) -> None:
    """A used --out, a missing or cut file and a later format are told, not tracebacks."""
    model, blueprint = _model((2,))
    folder = tmp_path / "m"
    bundle.write(folder, model, blueprint, card="Research use only")
    with pytest.raises(ConfigError, match="in use"):
        bundle.write(folder, model, blueprint, card="Research use only")
    heads = json.loads((folder / bundle.HEADS).read_text("utf-8"))
    (folder / bundle.HEADS).write_text(json.dumps({**heads, "format": 2}), "utf-8")
    with pytest.raises(CheckpointError, match="format 2"):
        ark_framework.load(folder)
    (folder / bundle.HEADS).write_text(json.dumps(heads), "utf-8")
    whole = (folder / bundle.BACKBONE).read_bytes()
    (folder / bundle.BACKBONE).write_bytes(whole[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        ark_framework.load(folder)
    (folder / bundle.BACKBONE).unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        ark_framework.load(folder)
    with pytest.raises(CheckpointError, match="neither"):
        ark_framework.load(tmp_path)
