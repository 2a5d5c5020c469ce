"""The teacher follows by EMA, buffers included, and never leaves eval mode."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ark_framework import LabelSchema
from ark_framework.builtin import backbones, heads
from ark_framework.config import ModelConfig
from ark_framework.model import ArkModel, HeadPlan, batch_norms, estimate, reestimated
from ark_framework.teacher import Teacher


def _resnet() -> ArkModel:
    schema = LabelSchema(name="s", kind="multilabel", labels=("a", "b"))
    options = backbones.TimmOptions(name="test_resnet")
    return ArkModel(
        backbones.SPECS[0].build(options),
        {"one": HeadPlan(spec=heads.SPECS[0], schema=schema)},
        config=ModelConfig(features=16),
        size=32,
    )


def test_update_equals_the_formula_and_torch_oracle() -> None:
    """Parameters and floating buffers equal torch's averaged model; integers are copied."""
    student = _resnet()
    teacher = Teacher(student)
    oracle = torch.optim.swa_utils.AveragedModel(
        student,
        use_buffers=True,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.75),
    )
    oracle.update_parameters(student)  # its first call copies
    with torch.no_grad():
        for tensor in student.parameters():
            tensor.add_(torch.randn_like(tensor))
        for norm in batch_norms(student):
            norm.running_mean.uniform_()
            norm.num_batches_tracked.add_(3)
    oracle.update_parameters(student)
    teacher.update(student, 0.75)
    expected = dict(oracle.module.named_parameters())
    for name, tensor in teacher.model.named_parameters():
        torch.testing.assert_close(tensor, expected[name])
    for mine, theirs, own in zip(
        batch_norms(teacher.model), batch_norms(oracle.module), batch_norms(student), strict=True
    ):
        torch.testing.assert_close(mine.running_mean, theirs.running_mean)
        assert mine.num_batches_tracked == own.num_batches_tracked == 3


def test_teacher_is_in_eval_mode_and_gives_no_gradient() -> None:
    """Forward leaves no graph, and batch-norm statistics do not move."""
    student = _resnet().train()
    teacher = Teacher(student)
    before = {name: each.clone() for name, each in teacher.model.named_buffers()}
    projected = teacher.project(torch.rand(4, 1, 32, 32))
    assert not projected.requires_grad
    assert not any(module.training for module in teacher.model.modules())
    for name, buffer in teacher.model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_scores_do_not_depend_on_the_last_task() -> None:
    """With statistics re-estimated over all tasks, the last batches seen do not matter."""
    model = _resnet().train()
    films = torch.rand(16, 1, 32, 32)
    tasks = [torch.rand(8, 1, 32, 32), torch.rand(8, 1, 32, 32) * 0.2 + 0.7]
    outputs = []
    for last in tasks:
        for _ in range(20):
            model(last, "one")
        with torch.no_grad(), reestimated(model, tasks):
            model.eval()
            outputs.append(model(films, "one"))
        model.train()
    torch.testing.assert_close(outputs[0], outputs[1])
    model.eval()
    with torch.no_grad():
        raw = model(films, "one")
    assert (raw - outputs[1]).abs().max() > 1e-3


def test_reestimation_gives_the_statistics_back() -> None:
    """After scoring, every buffer and momentum is as it was."""
    model = _resnet()
    before = [(n.running_mean.clone(), n.momentum) for n in batch_norms(model)]
    with reestimated(model, [torch.rand(8, 1, 32, 32)]):
        assert any(
            (n.running_mean != kept).any()
            for n, (kept, _) in zip(batch_norms(model), before, strict=True)
        )
    for norm, (kept, momentum) in zip(batch_norms(model), before, strict=True):
        assert torch.equal(norm.running_mean, kept)
        assert norm.momentum == momentum


def test_estimate_is_the_mean_over_batches() -> None:
    """The first batch norm's mean is the plain mean of the batches' means."""
    model = _resnet()
    first = batch_norms(model)[0]
    seen: list[torch.Tensor] = []
    hook = first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    estimate(model, [torch.rand(8, 1, 32, 32), torch.rand(8, 1, 32, 32)])
    hook.remove()
    expected = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in seen]).mean(0)
    torch.testing.assert_close(first.running_mean, expected)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet"])
def test_timm_families_give_maps_and_pool(name: str) -> None:
    """Maps are NCHW, the last one pools to the width found by the dry forward."""
    options = backbones.TimmOptions(name=name)
    encoder = backbones.SPECS[0].build(options).eval()
    size = 160 if name == "test_vit" else 64
    with torch.no_grad():
        maps = encoder.forward_maps(torch.rand(2, 3, size, size))
        pooled = encoder.pool(maps[-1])
    assert all(each.ndim == 4 and len(each) == 2 for each in maps)
    assert pooled.ndim == 2
    assert isinstance(encoder, nn.Module)


def test_pool_equals_timm() -> None:
    """For a Swin, maps and pool give timm's own pre-logits features."""
    options = backbones.TimmOptions(
        name="swin_tiny_patch4_window7_224",
        kwargs={
            "img_size": 32,
            "window_size": 4,
            "embed_dim": 16,
            "depths": (2, 2),
            "num_heads": (2, 4),
        },
    )
    encoder = backbones.SPECS[0].build(options).eval()
    films = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = encoder.model.forward_head(
            encoder.model.forward_features(films), pre_logits=True
        )
        actual = encoder.pool(encoder.forward_maps(films)[-1])
    torch.testing.assert_close(actual, expected)
