"""Any timm model as an encoder with feature maps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from ark_framework import ConfigError, MachineError, did_you_mean


class TimmEncoder(nn.Module):
    """Wraps ``timm.create_model(name, num_classes=0)``.

    ``forward_maps(x)``: ``(B, in_chans, S, S)`` to a list of ``(B, C_i, H_i, W_i)``; the last is
    the map after the model's final norm.  ``pool(map)``: ``(B, D)`` by the model's own pooling
    where it works on maps, else the mean over positions.

    Raises:
        ConfigError: unknown model name, or arguments that the model refuses.
        MachineError: pretrained weights that cannot be had here.
    """

    def __init__(
        self,
        name: str,
        *,
        in_chans: int = 3,
        pretrained: bool | str = False,
        kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.in_chans, self.name = in_chans, name
        if not timm.is_model(name):
            known = timm.list_models()
            raise ConfigError(
                f"model.options.name: timm has no model {name!r}{did_you_mean(name, known)}"
            )
        self.model: Any = _create(
            name, in_chans=in_chans, pretrained=pretrained, kwargs=kwargs or {}
        )
        # A strided default of forward_intermediates returns maps before the final norm.
        self._channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps, finest first, the final one last; ``(B, C_i, H_i, W_i)``."""
        if not hasattr(self.model, "forward_intermediates"):
            return [self._as_map(self.model.forward_features(x))]
        final, maps = self.model.forward_intermediates(x, output_fmt="NCHW")
        last = self._as_map(final)
        if maps and maps[-1].shape == last.shape:
            maps = maps[:-1]
        return [*maps, last]

    def pool(self, last: Tensor) -> Tensor:
        """Pool the final map ``(B, C, H, W)`` to ``(B, D)``."""
        if hasattr(self.model, "patch_embed") and hasattr(self.model, "fc_norm"):
            normed: Tensor = self.model.fc_norm(last.flatten(2).mean(2))
            return normed
        native = last.permute(0, 2, 3, 1) if self._channels_last else last
        pooled: Tensor = self.model.forward_head(native, pre_logits=True)
        return pooled

    def set_grad_checkpointing(self) -> None:
        """Compute activations again in the backward pass, rather than keep them.

        Raises:
            ConfigError: timm's model cannot.
        """
        try:
            self.model.set_grad_checkpointing()
        except (AttributeError, AssertionError) as error:
            raise ConfigError(
                f"model.checkpointing: timm's {self.name!r} cannot compute its activations twice; "
                "leave it off and lower runtime.piece"
            ) from error

    def _as_map(self, features: Tensor) -> Tensor:
        if features.ndim == 4:
            return features.permute(0, 3, 1, 2) if self._channels_last else features
        # Tokens: drop the prefix (class, registers) and lay the patches out on their grid.
        prefix = int(getattr(self.model, "num_prefix_tokens", 0))
        patches = features[:, prefix:]
        batch, count, width = patches.shape
        side = round(count**0.5)
        return patches.transpose(1, 2).reshape(batch, width, side, count // side)


def _create(
    name: str, *, in_chans: int, pretrained: bool | str, kwargs: Mapping[str, Any]
) -> nn.Module:
    local = isinstance(pretrained, str)
    if local and not Path(str(pretrained)).is_file():
        raise MachineError(f"model.init: no weights file {pretrained!r}")
    overlay = {"file": pretrained} if local else None
    try:
        with torch.random.fork_rng(devices=[], enabled=False):
            model: nn.Module = timm.create_model(
                name,
                pretrained=bool(pretrained),
                num_classes=0,
                in_chans=in_chans,
                pretrained_cfg_overlay=overlay,
                **dict(kwargs),
            )
    except Exception as error:  # timm's models raise whatever their arguments lead to
        if not pretrained or isinstance(error, TypeError | AssertionError):
            why = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigError(f"model.options: timm's {name!r} refuses them: {why}") from error
        if not isinstance(error, OSError | RuntimeError):
            raise
        raise MachineError(
            f"no pretrained weights for {name!r} here ({type(error).__name__}); give a local file "
            "as model.init: PATH, or model.init: random"
        ) from error
    return model
