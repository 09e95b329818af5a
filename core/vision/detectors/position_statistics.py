"""Statistics of good parts at each position: a Gaussian of their features or of the residuals of their features.

The method is that of Defard, Setkov, Loesch & Audigier, "PaDiM" (ICPR 2021). Each covariance is a full matrix, shrunk
towards the mean covariance of all positions, because there are always too few good parts for the number of features.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Self

import torch
from torch import Tensor

_PRIOR_IMAGES: Final = 50
"""Weight of the mean covariance of all positions, in images; 10 to 500 gave the same results on solar cells."""
_RIDGE_SHARE: Final = 0.01
"""Share of the mean variance added to every variance, so that constant features may vary a little."""
_POSITIONS: Final = 16
"""Positions whose covariance is inverted at a time."""
_MIN_RIDGE: Final = 1e-4
"""The smallest ridge, in the variance of standardised features: the noise of any camera is higher."""


@dataclass(frozen=True)
class PositionSums:
    """Sums over features at P positions. The sums of disjoint images can be added and subtracted.

    Attributes:
        count: number of features per position.
        total: float64, (P, C).
        products: float64, (P, C, C): the sum of the outer products.
        rows, columns: of the grid; P is their product.
    """

    count: int
    total: Tensor
    products: Tensor
    rows: int
    columns: int

    @classmethod
    def of(cls, minibatches: Iterable[Tensor]) -> Self:
        """Sum over minibatches of features, each (n, C, rows, columns). Holds one in memory at a time.

        Raises:
            ValueError: there are no features.
        """
        count, total, products = 0, torch.zeros(()), torch.zeros(())
        rows = columns = 0
        for features in minibatches:
            rows, columns = features.shape[2:]
            flat = features.flatten(2).permute(2, 0, 1)  # (P, n, C)
            count += flat.shape[1]
            total = total + flat.sum(1, dtype=torch.float64).cpu()
            products = products + (flat.transpose(1, 2) @ flat).cpu().to(torch.float64)
        if count == 0:
            raise ValueError("the statistics need at least one image")
        return cls(count, total, products, rows, columns)

    def without(self, others: "PositionSums") -> "PositionSums":
        """Return the sums over the images that are not among the others."""
        return PositionSums(
            self.count - others.count,
            self.total - others.total,
            self.products - others.products,
            self.rows,
            self.columns,
        )

    def pooled(self) -> "PositionSums":
        """Return the sums over all positions together, as those of a grid of one cell."""
        return PositionSums(
            self.count * len(self.total), self.total.sum(0, keepdim=True), self.products.sum(0, keepdim=True), 1, 1
        )


class PositionStatistics:
    """Gaussians over C features at P = rows × columns positions, or one for all positions.

    Attributes:
        mean: float32, (P, C).
        whitening: float32, (P, C, C), lower triangular; transforms deviations from the mean into independent ones of
            variance 1. Its values are rounded to float16, because bundles store float16.
    """

    def __init__(self, mean: Tensor, whitening: Tensor, rows: int, columns: int) -> None:
        if mean.shape[0] != rows * columns or whitening.shape != (*mean.shape, mean.shape[1]):
            raise ValueError(f"the statistics are not for {rows} × {columns} positions")
        self.mean, self.whitening = mean, whitening
        self._rows, self._columns = rows, columns

    @classmethod
    def from_sums(cls, sums: PositionSums) -> Self:
        """Compute the statistics of the features in the sums, at least one per position."""
        mean = sums.total / sums.count
        covariance = sums.products - sums.count * mean[:, :, None] * mean[:, None, :]
        whitening = _compute_whitening(covariance / max(sums.count - 1, 1), sums.count)
        return cls(mean.float(), whitening, sums.rows, sums.columns)

    def distance(self, features: Tensor) -> Tensor:
        """Return the distance of features (N, C, rows, columns) from normal: float32, (N, rows, columns).

        This is the Mahalanobis distance divided by √C, the root mean square of C independent deviations: about 1 for
        good parts. Statistics of a single position apply to every position.
        """
        rows, columns = features.shape[2:]
        if len(self.mean) == 1:
            deviations = features.flatten(2) - self.mean[:, :, None]  # (N, C, P)
            return (self.whitening @ deviations).square().mean(1).sqrt().reshape(-1, rows, columns)
        deviations = features.flatten(2).permute(2, 1, 0) - self.mean[:, :, None]  # (P, C, N)
        whitened = torch.bmm(self.whitening, deviations)
        return whitened.square().mean(1).sqrt().T.reshape(-1, rows, columns)

    def to(self, device: str) -> Self:
        """Return a copy on the device."""
        return type(self)(self.mean.to(device), self.whitening.to(device), self._rows, self._columns)

    def state_dict(self) -> dict[str, Tensor]:
        """Return `mean`, and the lower triangles of `whitening` as float16, (P, C (C + 1) / 2)."""
        row, column = torch.tril_indices(*self.whitening.shape[1:]).tolist()
        triangles = self.whitening[:, row, column].to(torch.float16)
        return {"mean": self.mean.cpu().contiguous(), "whitening": triangles.cpu().contiguous()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], rows: int, columns: int) -> Self:
        """Restore statistics from the result of `state_dict`.

        Raises:
            KeyError: a tensor is missing.
            ValueError: a tensor does not fit.
        """
        mean, triangles = state["mean"], state["whitening"]
        channels = mean.shape[-1] if mean.ndim == 2 else 0
        if mean.ndim != 2 or triangles.shape != (mean.shape[0], channels * (channels + 1) // 2):
            raise ValueError("the mean and the whitening of the statistics have shapes that do not fit together")
        row, column = torch.tril_indices(channels, channels).tolist()
        whitening = torch.zeros((*mean.shape, mean.shape[1]))
        whitening[:, row, column] = triangles.float()
        return cls(mean.float(), whitening, rows, columns)


def _compute_whitening(covariance: Tensor, count: int) -> Tensor:
    """Invert the lower Cholesky factor of each shrunk covariance: float32, rounded to float16, (P, C, C)."""
    share = _PRIOR_IMAGES / (count + _PRIOR_IMAGES)
    shrunk = (1 - share) * covariance + share * covariance.mean(0)
    ridge = (_RIDGE_SHARE * shrunk.diagonal(dim1=1, dim2=2).mean(1)).clamp_min(_MIN_RIDGE)
    identity = torch.eye(covariance.shape[1], dtype=covariance.dtype)
    whitening = torch.empty(covariance.shape, dtype=torch.float32)
    for start in range(0, len(covariance), _POSITIONS):  # all at once would take several times the memory
        chosen = slice(start, start + _POSITIONS)
        factors = torch.linalg.cholesky(shrunk[chosen] + ridge[chosen, None, None] * identity)
        inverses = torch.linalg.solve_triangular(factors, identity.expand_as(factors), upper=False)
        whitening[chosen] = inverses.to(torch.float16).float()
    return whitening
