"""The two small classifiers whose features judge realism; imported only where torch is used.

They differ in architecture, activation, normalisation and the layer that gives local features, so
that a detector taught by one is not judged by itself.
"""

from __future__ import annotations

from torch import Tensor, nn


class PlainNetwork(nn.Module):
    """The teacher: plain convolutions, batch normalisation, ReLU.

    Local features are the 32 channels of the second convolution (16x16, receptive field 9
    pixels), averaged over 3x3 neighbours.
    """

    def __init__(self, classes: int = 10, width: int = 32) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, size: int, stride: int) -> nn.Sequential:
            convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
            return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())

        self.local = nn.Sequential(block(1, width, 5, 2), block(width, width, 3, 1))
        self.deep = nn.Sequential(block(width, 2 * width, 3, 2), block(2 * width, 3 * width, 3, 1))
        self.head = nn.Linear(3 * width, classes)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Local features (n, 32, 16, 16) and one vector an image (n, 96)."""
        local = self.local(images)
        vector = self.deep(local).mean((2, 3))
        return nn.functional.avg_pool2d(local, 3, 1, 1, count_include_pad=False), vector

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (n, 10) of images (n, 1, 32, 32) in -1..1."""
        scores: Tensor = self.head(self.features(images)[1])
        return scores


class Bottleneck(nn.Module):
    """A residual block: 1x1 down, 3x3, 1x1 up, with group normalisation and SiLU."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(4, width),
            nn.Conv2d(width, inner, 1),
            nn.SiLU(),
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(inner, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Add the block's output to its input."""
        out: Tensor = x + self.layers(x)
        return out


class ResidualNetwork(nn.Module):
    """The judge: bottleneck blocks on the image unshuffled by 2, group normalisation, SiLU.

    Local features are the 48 channels after the second block (16x16, receptive field 14 pixels).
    """

    def __init__(self, classes: int = 10, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, width, 3, padding=1))
        self.local = nn.Sequential(Bottleneck(width, 24), Bottleneck(width, 24))
        self.deep = nn.Sequential(
            nn.Conv2d(width, 64, 2, 2), Bottleneck(64, 48), Bottleneck(64, 48), nn.GroupNorm(4, 64)
        )
        self.head = nn.Linear(64, classes)

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Local features (n, 48, 16, 16) and one vector an image (n, 64)."""
        local = self.local(self.stem(images))
        vector = nn.functional.silu(self.deep(local)).mean((2, 3))
        return local, vector

    def forward(self, images: Tensor) -> Tensor:
        """Class scores (n, 10) of images (n, 1, 32, 32) in -1..1."""
        scores: Tensor = self.head(self.features(images)[1])
        return scores


NETWORKS: dict[str, type[PlainNetwork] | type[ResidualNetwork]] = {
    "plain": PlainNetwork,
    "residual": ResidualNetwork,
}


def build_network(architecture: str) -> PlainNetwork | ResidualNetwork:
    """Build one of `NETWORKS`, with fresh weights, in evaluation mode."""
    network = NETWORKS[architecture]()
    network.eval()
    return network
