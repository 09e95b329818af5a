"""What is normal at each position: a Gaussian of the features that good parts show there.

Defard, Setkov, Loesch & Audigier, "PaDiM" (ICPR 2021), judge features so; here their residuals may be judged alike. The
covariances are full and shrunk towards the one of all positions, for good parts are always too few for their features.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Self

import torch
from torch import Tensor

_PRIOR_IMAGES: Final = 50
"""The covariance of all positions counts as much as this many images; found flat from 10 to 500 on solar cells."""
_RIDGE: Final = 0.01
"""Of the mean variance, added to every variance: directions in which nothing varied may vary a little."""
_FLOOR: Final = 1e-4
"""Of the variance of standardised features: noise that no camera goes below."""


class PositionStatistics:
    """Gaussians over C features at P = rows × columns positions.

    Attributes:
        mean: float32, (P, C).
        whitening: float32, (P, C, C), lower triangular; it turns deviations from the mean into independent ones of
            variance 1. Its values are those that float16 holds, because bundles keep them so.
    """

    def __init__(self, mean: Tensor, whitening: Tensor, rows: int, columns: int) -> None:
        if mean.shape[0] != rows * columns or whitening.shape != (*mean.shape, mean.shape[1]):
            raise ValueError(f"the statistics are not those of {rows} × {columns} positions")
        self.mean, self.whitening = mean, whitening
        self._rows, self._columns = rows, columns

    @classmethod
    def of(cls, minibatches: Iterable[Tensor]) -> Self:
        """The statistics of features, each minibatch (n, C, rows, columns); one is in memory at a time.

        Raises:
            ValueError: there are none.
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
            raise ValueError("statistics need at least one image")
        mean = total / count
        covariance = (products - count * mean[:, :, None] * mean[:, None, :]) / max(count - 1, 1)
        return cls(mean.float(), _whitening(covariance, count), rows, columns)

    def distance(self, features: Tensor) -> Tensor:
        """How far features (N, C, rows, columns) lie from normal: float32, (N, rows, columns), about 1 for good parts.

        The Mahalanobis distance over the square root of C: the root mean square of C independent deviations.
        """
        deviations = features.flatten(2).permute(2, 1, 0) - self.mean[:, :, None]  # (P, C, N)
        whitened = torch.bmm(self.whitening, deviations)
        return whitened.square().mean(1).sqrt().T.reshape(-1, self._rows, self._columns)

    def to(self, device: str) -> Self:
        """The same on a device."""
        return type(self)(self.mean.to(device), self.whitening.to(device), self._rows, self._columns)

    def state_dict(self) -> dict[str, Tensor]:
        """`mean`, and the lower triangles of `whitening` in float16, (P, C (C + 1) / 2)."""
        row, column = torch.tril_indices(*self.whitening.shape[1:]).tolist()
        triangles = self.whitening[:, row, column].to(torch.float16)
        return {"mean": self.mean.cpu().contiguous(), "whitening": triangles.cpu().contiguous()}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Tensor], rows: int, columns: int) -> Self:
        """What `state_dict` gave.

        Raises:
            KeyError, ValueError: it did not.
        """
        mean, triangles = state["mean"], state["whitening"]
        channels = mean.shape[-1] if mean.ndim == 2 else 0
        if mean.ndim != 2 or triangles.shape != (mean.shape[0], channels * (channels + 1) // 2):
            raise ValueError("the statistics have odd shapes")
        row, column = torch.tril_indices(channels, channels).tolist()
        whitening = torch.zeros((*mean.shape, mean.shape[1]))
        whitening[:, row, column] = triangles.float()
        return cls(mean.float(), whitening, rows, columns)


def _whitening(covariance: Tensor, count: int) -> Tensor:
    """The inverse of the lower Cholesky factor of each shrunk covariance: float32 rounded to float16, (P, C, C)."""
    share = _PRIOR_IMAGES / (count + _PRIOR_IMAGES)
    shrunk = (1 - share) * covariance + share * covariance.mean(0)
    ridge = (_RIDGE * shrunk.diagonal(dim1=1, dim2=2).mean(1)).clamp_min(_FLOOR)
    identity = torch.eye(covariance.shape[1], dtype=covariance.dtype)
    whitening = torch.empty(covariance.shape, dtype=torch.float32)
    for position in range(len(covariance)):  # one by one: all at once would take several times the memory
        factor = torch.linalg.cholesky(shrunk[position] + ridge[position] * identity)
        inverse = torch.linalg.solve_triangular(factor, identity, upper=False)
        whitening[position] = inverse.to(torch.float16).float()
    return whitening
