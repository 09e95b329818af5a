"""The reference detector: a plain convolutional autoencoder, scored by its mean squared error.

What a network that has seen only good parts cannot reconstruct is not normal. The network is small, its error follows
the light, and its global mean dilutes small defects: it is kept because people have weights of it.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import ClassVar, Final, Self

import numpy as np
import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from core.vision.bundle import WEIGHTS, Architecture, InvalidBundle
from core.vision.detector import Checkpoint, Detector, Epoch, FitOptions, Pictures, Scored
from core.vision.preprocessing import Picture, Preprocessing

_CHUNK: Final = {"cpu": 16, "cuda": 256}
"""Pictures that the network sees at once: on a CPU more only overflow its caches, on a GPU its memory."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """What the network is built from. Sides are in pixels and multiples of 8; channels are those of the encoder."""

    width: int = 128
    height: int = 128
    channels_1: int = 32
    channels_2: int = 64
    channels_3: int = 128

    def __post_init__(self) -> None:
        if not all(isinstance(side, int) and 8 <= side <= 4096 and side % 8 == 0 for side in (self.width, self.height)):
            raise ValueError(f"the picture must be 8 to 4096 pixels, multiples of 8, not {self.width} × {self.height}")
        channels = (self.channels_1, self.channels_2, self.channels_3)
        if not all(isinstance(count, int) and 1 <= count <= 1024 for count in channels):
            raise ValueError(f"the network must have 1 to 1024 channels a layer, not {channels}")


class Autoencoder(nn.Module):
    """Pictures in, their reconstructions out: float32, (N, 3, height, width), 0 to 1.

    The indices of the layers are part of the interface: plain state dicts name `encoder.0|3|6` and `decoder.1|4|7`.
    Upsampling and convolution are apart because the checkerboard of transposed convolutions would enter the score.
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        one, two, three = settings.channels_1, settings.channels_2, settings.channels_3
        self.encoder = nn.Sequential(
            nn.Conv2d(3, one, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(one, two, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(two, three, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(three, two, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(two, one, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(one, 3, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Reconstruct (N, 3, height, width), float32 in 0 to 1, as the same."""
        reconstructed: Tensor = self.decoder(self.encoder(pictures))
        return reconstructed


def to_network(pictures: Sequence[Picture], device: str) -> Tensor:
    """Prepared pictures as the network takes them: float32, (N, 3, height, width), 0 to 1, on the device.

    The one division by 255 of the whole system.
    """
    stacked = torch.from_numpy(np.stack(pictures)).to(device)
    return stacked.permute(0, 3, 1, 2).to(torch.float32) / 255


class AutoencoderDetector(Detector):
    """Scores by the mean over pixels and channels of (picture - reconstruction)², pictures being in 0 to 1."""

    name: ClassVar[str] = "conv-autoencoder"
    score_method = "mse"

    def __init__(
        self,
        network: Autoencoder,
        settings: AutoencoderSettings,
        preprocessing: Preprocessing,
        *,
        device: str,
        max_pixels: int,
    ) -> None:
        if (preprocessing.width, preprocessing.height) != (settings.width, settings.height):
            raise ValueError("the preprocessing's size is not the network's")
        if device == "cuda":
            # TF32 keeps ten bits of each factor: the golden scores would not be reproduced.
            torch.backends.cuda.matmul.allow_tf32 = False
            torch.backends.cudnn.allow_tf32 = False
        self.architecture = Architecture(name=self.name, settings=asdict(settings))
        self.preprocessing = preprocessing
        self.max_pixels = max_pixels
        self.device = device
        # Channels last halves the time on a CPU, and prepared pictures lie that way already.
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    @classmethod
    def input_size(cls, size: tuple[int, int], side: int | None) -> tuple[int, int]:
        """See `Detector.input_size`: a square, whatever the picture's shape."""
        side = 128 if side is None else side
        return side, side

    @classmethod
    def fit(
        cls,
        training: Pictures,
        validation: Pictures,
        preprocessing: Preprocessing,
        options: FitOptions,
        *,
        device: str,
        max_pixels: int,
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """See `Detector.fit`. Adam (Kingma & Ba, 2015) on the mean squared error, its rate falling as a half cosine."""
        settings = AutoencoderSettings(width=preprocessing.width, height=preprocessing.height)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network = Autoencoder(settings)
        detector = cls(network, settings, preprocessing, device=device, max_pixels=max_pixels)
        random = np.random.default_rng(options.seed)
        optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
        best, best_loss, best_epoch = copy.deepcopy(network.state_dict()), np.inf, 0
        for number in range(1, options.epochs + 1):
            training_loss = _train_epoch(network, optimizer, training, options, random, device)
            schedule.step()
            validation_loss = detector.mean_error(validation)
            on_epoch(Epoch(number, training_loss, validation_loss))
            if validation_loss < best_loss:
                best, best_loss, best_epoch = copy.deepcopy(network.state_dict()), validation_loss, number
            elif number - best_epoch >= options.patience:
                break
        network.load_state_dict(best)
        return detector

    def score(self, pictures: Sequence[Picture]) -> Scored:
        """The map is the squared error of each pixel, averaged over the channels, 0 to 1; the score is its mean."""
        scores = np.empty(len(pictures), dtype=np.float64)
        maps = np.empty((len(pictures), self.preprocessing.height, self.preprocessing.width), dtype=np.float32)
        step = _CHUNK[self.device]
        with torch.inference_mode():
            for start in range(0, len(pictures), step):
                errors = self._errors(pictures[start : start + step])
                scores[start : start + step] = errors.mean(dim=(1, 2), dtype=torch.float64).cpu().numpy()
                maps[start : start + step] = errors.cpu().numpy()
        return Scored(scores, maps)

    def mean_error(self, pictures: Pictures) -> float:
        """The mean score of many pictures."""
        return float(np.concatenate([self.score(list(some)).scores for some in pictures.minibatches(64)]).mean())

    def _errors(self, pictures: Sequence[Picture]) -> Tensor:
        original = to_network(pictures, self.device)
        reconstructed: Tensor = self.network(original)
        return (original - reconstructed).square().mean(dim=1)

    def save(self) -> dict[str, bytes]:
        """`weights.safetensors`: float32, the names of a plain state dict."""
        return {
            WEIGHTS: save_tensors(
                {name: weight.cpu().contiguous() for name, weight in self.network.state_dict().items()}
            )
        }

    @classmethod
    def load(
        cls,
        files: Mapping[str, bytes],
        architecture: Architecture,
        preprocessing: Preprocessing,
        *,
        device: str,
        max_pixels: int,
    ) -> Self:
        """See `Detector.load`."""
        try:
            settings = AutoencoderSettings(**architecture.settings)  # type: ignore[arg-type]
            weights = load_tensors(files[WEIGHTS])
            return cls(with_weights(settings, weights), settings, preprocessing, device=device, max_pixels=max_pixels)
        except (TypeError, ValueError, safetensors.SafetensorError) as error:
            raise InvalidBundle(f"the bundle's {cls.name} cannot be built: {error}") from error


def _train_epoch(
    network: Autoencoder,
    optimizer: torch.optim.Optimizer,
    training: Pictures,
    options: FitOptions,
    random: np.random.Generator,
    device: str,
) -> float:
    """One pass over the training pictures in random order; returns the mean of the steps' losses."""
    network.train()
    order = random.permutation(len(training))
    losses = []
    for some in training.minibatches(options.batch_size, order.tolist()):
        pictures = augment(to_network(list(some), device), random, flips=options.flips)
        optimizer.zero_grad(set_to_none=True)
        loss = nn.functional.mse_loss(network(pictures), pictures)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    network.eval()
    return float(torch.stack(losses).mean())


def augment(pictures: Tensor, random: np.random.Generator, *, flips: bool) -> Tensor:
    """Vary good parts as a fixture and a lamp would: a gain of 0.95 to 1.05, an offset of ±0.02, a shift of ±2 pixels.

    Nothing stronger: what is shown here as normal is not found later. Pictures are float32, (N, 3, height, width), 0 to
    1, and stay so; a shift repeats the edge. With `flips`, half of them are mirrored along each axis.
    """
    count, _, height, width = pictures.shape
    gain = torch.from_numpy(random.uniform(0.95, 1.05, (count, 1, 1, 1)).astype(np.float32)).to(pictures.device)
    offset = torch.from_numpy(random.uniform(-0.02, 0.02, (count, 1, 1, 1)).astype(np.float32)).to(pictures.device)
    shifts = random.integers(0, 5, (count, 2))
    mirrored = random.random((count, 2)) < 0.5
    padded = nn.functional.pad(pictures, (2, 2, 2, 2), mode="replicate")
    varied = []
    for picture, (down, right), mirror in zip(padded, shifts.tolist(), mirrored.tolist(), strict=True):
        cut = picture[:, down : down + height, right : right + width]
        varied.append(cut.flip([axis + 1 for axis in (0, 1) if mirror[axis]]) if flips else cut)
    shifted = torch.stack(varied).contiguous(memory_format=torch.channels_last)
    return (shifted * gain + offset).clamp(0, 1)


def with_weights(settings: AutoencoderSettings, weights: Mapping[str, Tensor]) -> Autoencoder:
    """The network with the weights of a plain state dict, in float32.

    Raises:
        ValueError: a name or a shape is not the network's, or a value is not finite.
    """
    with torch.device("meta"):  # neither memory nor random numbers are spent on weights that are replaced
        network = Autoencoder(settings)
    expected = network.state_dict()
    if weights.keys() != expected.keys():
        odd = sorted(weights.keys() ^ expected.keys())
        verb = "lacks" if odd[0] in expected else "has an unexpected"
        raise ValueError(f"the state dict {verb} {odd[0]!r}: the network has {', '.join(expected)}")
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            raise ValueError(f"{name} has the shape {tuple(weight.shape)}, not {tuple(expected[name].shape)}")
        if not weight.is_floating_point() or not torch.isfinite(weight).all():
            raise ValueError(f"{name} holds values that are not finite floating-point numbers")
    network.load_state_dict({name: weight.to(torch.float32) for name, weight in weights.items()}, assign=True)
    return network
