"""The module: a plain vision transformer whose tokens are laid out as a map."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel

from ark_framework import ArkError, ConfigError, MachineError, did_you_mean

if TYPE_CHECKING:
    from ark_plugin_hf_vision import HfVisionOptions

# Parameters that a forward pass to the last tokens does not reach.
UNUSED = ("pooler.", "embeddings.mask_token")


class HfVision(nn.Module):
    """Wraps a transformer that has patches of one size and a class token.

    ``forward_maps(x)``: ``(B, in_chans, H, W)`` to one map ``(B, D, H / patch, W / patch)`` after
    the final norm, ``2 D`` wide with the class token.  ``pool(map)``: the mean over positions.

    Raises:
        ConfigError: an architecture or a configuration that does not fit.
        MachineError: weights that are not here, or not whole.
    """

    def __init__(self, options: HfVisionOptions) -> None:
        super().__init__()
        self.class_token = options.class_token
        folder = options.pretrained
        config = _described(folder) if folder else _configured(options)
        if not isinstance(getattr(config, "patch_size", None), int):
            raise ConfigError(
                f"model.options: {config.model_type!r} is no transformer over patches; "
                "hf-vision takes dinov2, dinov2_with_registers, vit and the like"
            )
        self.patch: int = config.patch_size
        self.in_chans: int = config.num_channels
        self.model = _loaded(config, folder) if folder else _drawn(config)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(not name.startswith(UNUSED))
        known = inspect.signature(self.model.forward).parameters
        # dinov2 always fits its positions to the size, vit when told.
        fitting = "interpolate_pos_encoding" in known
        self.settings = {"interpolate_pos_encoding": True} if fitting else {}

    def forward_maps(self, x: Tensor) -> list[Tensor]:
        """Return the last map, alone."""
        rows, columns = (max(1, round(side / self.patch)) for side in x.shape[2:])
        whole = (rows * self.patch, columns * self.patch)
        if x.shape[2:] != whole:  # a strided patch layer would cut the edge off, silently
            x = functional.interpolate(x, whole, mode="bilinear", antialias=True)
        tokens = self.model(pixel_values=x, **self.settings).last_hidden_state  # B N D
        first = tokens.shape[1] - rows * columns if tokens.ndim == 3 else -1
        if first < self.class_token:
            raise ConfigError(
                f"model.options: {self.model.config.model_type!r} gives {tuple(tokens.shape)}, not "
                f"{int(self.class_token)} class and {rows * columns} patch tokens a film"
            )
        last = tokens[:, first:].transpose(1, 2).unflatten(2, (rows, columns))
        if self.class_token:
            last = torch.cat([last, tokens[:, 0, :, None, None].expand_as(last)], dim=1)
        return [last]

    def pool(self, last: Tensor) -> Tensor:
        """Return the mean over positions: of the patches, and the class token beside it."""
        return last.mean((2, 3))


def _configured(options: HfVisionOptions) -> Any:
    name = options.architecture
    if name not in CONFIG_MAPPING:
        raise ConfigError(
            f"model.options.architecture: transformers has no {name!r}"
            f"{did_you_mean(name, CONFIG_MAPPING)}"
        )
    known = AutoConfig.for_model(name).to_dict()
    for key in options.config:  # transformers would keep it and say nothing
        if key not in known:
            raise ConfigError(
                f"model.options.config: {name} has no {key!r}{did_you_mean(key, known)}"
            )
    with _refused(ConfigError, "model.options.config: transformers refuses it"):
        return AutoConfig.for_model(name, **options.config)


def _described(folder: Path) -> Any:
    if not (folder / "config.json").is_file():
        raise MachineError(
            f"model.init: {str(folder)!r} is no folder with config.json and model.safetensors; "
            "nothing is downloaded, so give the path of one"
        )
    with _refused(MachineError, f"model.init: {folder} cannot be read"):
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _drawn(config: Any) -> Any:
    build: Callable[[Any], Any] = AutoModel.from_config
    with _refused(ConfigError, "model.options.config: transformers refuses it"):
        return build(config)


def _loaded(config: Any, folder: Path) -> Any:
    with _refused(MachineError, f"model.init: {folder} cannot be loaded"):
        model, found = AutoModel.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,  # the other format can carry code
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
        )
    if lacking := sorted(key for key in found["missing_keys"] if not key.startswith(UNUSED)):
        raise MachineError(
            f"model.init: {folder} lacks {len(lacking)} parameters of its own configuration, "
            f"{lacking[0]!r} among them"
        )
    return model


@contextmanager
def _refused(kind: type[ArkError], what: str) -> Iterator[None]:
    """Turn what transformers raises over several lines into one."""
    try:
        yield
    except Exception as error:  # what it raises differs by architecture
        raise kind(f"{what}: {' '.join(str(error).split())[:300]}") from error
