"""The conformance kit, the tokens against transformers itself, and a run from a local folder."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from ark_plugin_hf_vision import SPEC, HfVisionOptions
from ark_plugin_hf_vision_encoder import HfVision
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from ark_framework import ConfigError, MachineError, checkpoint, config, hookimpl, train
from ark_framework.events import StepsFlushed
from ark_framework.registry import parse_options
from ark_framework.testing import conformance

test_conformance = conformance("ark-hf-vision")

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28}
KINDS = {"dinov2": 1, "dinov2_with_registers": 5, "vit": 1}  # with their tokens before the patches


def encoder(architecture: str = "dinov2", **more: Any) -> HfVision:
    torch.manual_seed(0)
    values = {"config": {**SMALL, "patch_size": 7}, "architecture": architecture, **more}
    return HfVision(HfVisionOptions(**values)).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder as ``save_pretrained`` writes it, with weights that are no fresh draw's."""
    folder = tmp_path / "weights"
    model = encoder().model
    torch.nn.init.normal_(model.embeddings.cls_token)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("side", [28, 42])
@pytest.mark.parametrize(("architecture", "before"), KINDS.items())
def test_tokens_are_those_of_transformers(architecture: str, before: int, side: int) -> None:
    """Patch (i, j) of the map is its token; the class token is beside each; also at other sizes."""
    model = encoder(architecture)
    views = torch.randn(2, 3, side, side)
    with torch.no_grad():
        (last,) = model.forward_maps(views)
        tokens = model.model(pixel_values=views, **model.settings).last_hidden_state
    count = side // 7
    assert last.shape == (2, 32, count, count)
    assert tokens.shape[1] == before + count * count
    for row, column in ((0, 0), (0, count - 1), (count - 1, 1)):
        assert torch.equal(last[:, :16, row, column], tokens[:, before + row * count + column])
        assert torch.equal(last[:, 16:, row, column], tokens[:, 0])
    pooled = model.pool(last)
    torch.testing.assert_close(pooled[:, :16], tokens[:, before:].mean(1))
    torch.testing.assert_close(pooled[:, 16:], tokens[:, 0])


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("architecture", KINDS)
def test_what_is_trained_is_reached(architecture: str, class_token: bool) -> None:
    """Every parameter that asks for a gradient has one, and all but pooler and mask token ask."""
    model = encoder(architecture, class_token=class_token)
    model.pool(model.forward_maps(torch.randn(2, 3, 28, 28))[-1]).square().sum().backward()
    for name, parameter in model.model.named_parameters():
        assert (parameter.grad is not None) is parameter.requires_grad, name
        assert parameter.requires_grad or "pooler" in name or "mask_token" in name


def test_a_size_between_is_fitted() -> None:
    """A film of 32 pixels has 5 patches of 7, not 4 and a strip that is cut off."""
    model = encoder()
    views = torch.randn(1, 3, 32, 32)
    other = views.clone()
    other[:, :, -3:] += 5.0
    with torch.no_grad():
        (last,), (moved,) = model.forward_maps(views), model.forward_maps(other)
    assert last.shape == (1, 32, 5, 5)
    assert (last - moved).abs().max() > 1e-3


def test_a_folder_gives_its_weights(saved: Path) -> None:
    """The features are those of the model that was saved, whatever the seed."""
    views = torch.randn(2, 3, 28, 28)
    torch.manual_seed(1)
    model = HfVision(HfVisionOptions(pretrained=saved)).eval()
    oracle = AutoModel.from_pretrained(saved, local_files_only=True).eval()
    with torch.no_grad():
        (last,) = model.forward_maps(views)
        tokens = oracle(pixel_values=views).last_hidden_state
    assert model.patch == 7
    assert torch.equal(last[:, :16].flatten(2), tokens[:, 1:].transpose(1, 2))


def test_a_folder_that_lacks_a_layer(saved: Path) -> None:
    """transformers would draw it at random and go on."""
    weights = load_file(saved / "model.safetensors")
    del weights["layernorm.weight"]
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MachineError, match=r"lacks 1 parameters.*'layernorm.weight'"):
        HfVision(HfVisionOptions(pretrained=saved))


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ({"architecture": "dinov3v2"}, ConfigError, "no 'dinov3v2'; did you mean 'dinov"),
        ({"config": {"hiden_size": 16}}, ConfigError, "no 'hiden_size'; did you mean 'hidden_size"),
        ({"config": {"hidden_size": "many"}}, ConfigError, "refuses it"),
        ({"architecture": "resnet", "config": {}}, ConfigError, "'resnet' is no transformer over"),
        ({"architecture": "bert", "config": {}}, ConfigError, "'bert' is no transformer over"),
        ({"pretrained": Path("elsewhere")}, MachineError, "'elsewhere' is no folder with config"),
    ],
)
def test_mistakes(values: dict[str, Any], error: type[Exception], said: str) -> None:
    """Each is one line that says what to change."""
    with pytest.raises(error, match=said) as found:
        HfVision(HfVisionOptions(**values))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"pretrained": True}, "nothing is downloaded; give a folder"),
        ({"pretrained": "weights", "config": {}}, "config is said by the folder of model.init"),
        ({"layers": 3}, "unknown key 'layers'"),
    ],
)
def test_options_that_do_not_fit(values: dict[str, Any], said: str) -> None:
    """Refused as the core reads them, in its own words."""
    with pytest.raises(ConfigError, match=said):
        parse_options(SPEC, values, where="model.options")


def test_a_transformer_whose_patches_are_merged() -> None:
    """Swin's tokens are no grid of its patches: refused with what they are."""
    options = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 2}
    model = HfVision(HfVisionOptions(architecture="swin", config=options))
    with pytest.raises(ConfigError, match="'swin' gives"):
        model.forward_maps(torch.randn(1, 3, 32, 32))


class Crash:
    """Ends a run between two checkpoints, as a crash would: nothing is saved or said."""

    @hookimpl
    def ark_steps_flushed(self, event: StepsFlushed) -> None:
        if event.steps[-1].step == 7:
            raise KeyboardInterrupt


def test_a_run_from_a_folder(tmp_path: Path, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``model.init: PATH`` trains from the folder without a network, and resumes exactly."""
    monkeypatch.setenv("ARK_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(socket.socket, "connect", None)
    changes = {
        "plugins": ["ark-phantom", "ark-hf-vision"],
        "tasks": [{"dataset": "phantom-north"}],
        "data": {"phantom-north": {"films": 120, "size": 32}},
        "cycles": 2,
        "batch_size": 16,
        "store": {"size": 32, "folder": str(tmp_path / "stores"), "workers": 1},
        "views": {"size": 28},
        "model": {"backbone": "hf-vision", "init": str(saved), "features": 8},
        "log": {"every": 4, "tensorboard": False},
        "checkpoint": {"every": 5},
        "runtime": {"threads": 1, "device": "cpu"},
    }
    settings = config.merge(config.recipe("demo"), changes)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(settings, out=whole)
    with pytest.raises(KeyboardInterrupt):
        train(settings, out=broken, watching=(Crash(),))
    train(out=broken, resume=True)
    left, right = checkpoint.load(whole), checkpoint.load(broken)
    for model in ("student", "teacher"):
        assert all(torch.equal(left[model][name], right[model][name]) for name in left[model])
    drawn = load_file(saved / "model.safetensors")["layernorm.weight"]
    assert not torch.equal(left["teacher"]["backbone.model.layernorm.weight"], drawn)
