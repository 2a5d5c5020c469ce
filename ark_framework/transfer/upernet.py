"""UperNet on a model's encoder: its stages, then segmentation-models-pytorch's decoder.

The encoder is the very module of the model, called as the model calls it; the decoder (Xiao et al.
2018, arXiv:1807.10221) is the library's.  docs/explanation/segmentation.md says how the published
network differs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ark_framework.errors import ConfigError, MachineError
from ark_framework.model import FilmEncoder

FINEST = 4  # stride of the finest map that UperNet takes, in pixels of the view
LEAST = 2  # maps, or there is no pyramid
HIERARCHICAL = (
    "swin, swinv2, convnext, convnextv2, resnet, resnext, regnet, densenet, efficientnet, maxvit, "
    "coatnet, pvt_v2, hiera, and the built-in tiny"
)


class UperNet(FilmEncoder):
    """Films ``(B, C, S, S)``, floats in 0..1, to logits ``(B, structures, S, S)``.

    Args:
        backbone: An encoder whose maps are a pyramid.
        normalize: As of the encoder's model.
        structures: How many masks it gives.
        width: Channels of the decoder.
        size: Side of the views in pixels.
        name: What errors call the encoder.

    Raises:
        ConfigError: the encoder's maps are no pyramid, or it does not take this size.
        MachineError: the extra ``segmentation`` is not installed.
    """

    def __init__(
        self, backbone: Any, *, normalize: str, structures: int, width: int, size: int, name: str
    ) -> None:
        super().__init__(backbone, normalize=normalize)
        self.taken, widths = self._pyramid(size, name)
        decoder, initialization = _library()
        # The library counts the view itself and a map at stride 2, and uses neither.
        self.decoder: nn.Module = decoder(
            encoder_channels=(0, 0, *widths), encoder_depth=1 + len(widths), decoder_channels=width
        )
        self.head = nn.Conv2d(width, structures, 1)
        initialization.initialize_decoder(self.decoder)
        initialization.initialize_head(self.head)

    def stages(self, views: Tensor) -> list[Tensor]:
        """Return the encoder's maps at strides 4, 8, …, as they go into the decoder."""
        maps = self.maps(views)
        return [maps[index] for index in self.taken]

    def forward(self, views: Tensor) -> Tensor:
        """Return logits at the views' size."""
        fused = self.decoder([None, None, *self.stages(views)])
        return functional.interpolate(
            self.head(fused), views.shape[-2:], mode="bilinear", align_corners=False
        )

    def _pyramid(self, size: int, name: str) -> tuple[list[int], list[int]]:
        """Return which maps are taken, the last of each stride, and their channels."""
        self.eval()
        try:
            with torch.no_grad():
                maps = self.maps(torch.zeros(1, 1, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{name} does not take films of {size} pixels: {reason}") from error
        self.train()
        last = {round(size / each.shape[-1]): index for index, each in enumerate(maps)}
        strides = sorted(stride for stride in last if stride >= FINEST)
        if strides != [FINEST * 2**power for power in range(max(LEAST, len(strides)))]:
            raise ConfigError(
                f"{name} cannot segment: UperNet needs maps at strides 4, 8, 16, …, and its maps "
                f"are at {', '.join(map(str, last))}; those of {HIERARCHICAL} fit"
            )
        return [last[stride] for stride in strides], [int(maps[last[s]].shape[1]) for s in strides]


def _library() -> tuple[Any, Any]:
    try:
        from segmentation_models_pytorch.base import initialization
        from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
    except ImportError as error:
        raise MachineError(
            "segmentation needs segmentation-models-pytorch: "
            "pip install 'ark-framework[segmentation]'"
        ) from error
    return UPerNetDecoder, initialization
