"""The reference detector: a plain convolutional autoencoder, trained from scratch.

What a network that has seen only good parts cannot reconstruct is not normal. Its error becomes a score in two ways:

`mse`, the mean squared error, as the synchronous demo had it. It follows the light, and the global mean dilutes small
defects: it is kept because people have such weights.

`z-map`, the default where no backbone's weights are at hand: a gain and an offset are fitted first, and each place is
judged by the mean and standard deviation that the error of good parts has there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from core.vision.detectors.architecture import WEIGHTS, Architecture
from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.detectors.device import disable_tf32
from core.vision.errors import InvalidBundle
from core.vision.input.preprocessing import PreparedImage, Preprocessing
from core.vision.training.options import Checkpoint, Epoch, FitOptions, PreparedImages
from core.vision.training.training_loop import TrainingLoop

MSE: Final = "mse"
Z_MAP: Final = "z-map"
_TOP: Final = 0.005
"""The share of a z-map's cells whose mean is the score."""
_CHUNK: Final = {"cpu": 16, "cuda": 256}
"""Images that the network sees at once: on a CPU more only overflow its caches, on a GPU its memory."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """What the network is built from. Sides are in pixels and multiples of 8; channels are those of the encoder.

    `score` is `mse` or `z-map`; bundles from before there was a choice have the first.
    """

    width: int = 128
    height: int = 128
    channels_1: int = 32
    channels_2: int = 64
    channels_3: int = 128
    score: str = MSE

    def __post_init__(self) -> None:
        if not all(isinstance(side, int) and 8 <= side <= 4096 and side % 8 == 0 for side in (self.width, self.height)):
            raise ValueError(f"the image must be 8 to 4096 pixels, multiples of 8, not {self.width} × {self.height}")
        channels = (self.channels_1, self.channels_2, self.channels_3)
        if not all(isinstance(count, int) and 1 <= count <= 1024 for count in channels):
            raise ValueError(f"the network must have 1 to 1024 channels a layer, not {channels}")
        if self.score not in (MSE, Z_MAP):
            raise ValueError(f"the score must be {MSE} or {Z_MAP}, not {self.score!r}")


class Autoencoder(nn.Module):
    """Images in, their reconstructions out: float32, (N, 3, height, width), 0 to 1.

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

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct (N, 3, height, width), float32 in 0 to 1, as the same."""
        reconstructed: Tensor = self.decoder(self.encoder(images))
        return reconstructed


def to_input_tensor(images: Sequence[PreparedImage], device: str) -> Tensor:
    """Prepared images as the network takes them: float32, (N, 3, height, width), 0 to 1, on the device.

    The one division by 255 of the whole system.
    """
    stacked = torch.from_numpy(np.stack(images)).to(device)
    return stacked.permute(0, 3, 1, 2).to(torch.float32) / 255


@dataclass(frozen=True)
class ErrorStatistics:
    """The mean and the standard deviation, over good parts, of the error at each place: float32, (height, width)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, errors: Iterable[Tensor]) -> Self:
        """The statistics of errors, (n, height, width) at a time.

        A deviation is at least a fifth of the median one: where good parts never varied, a little is still normal.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for some in errors:
            count += len(some)
            total = total + some.sum(0, dtype=torch.float64).cpu()
            squares = squares + some.to(torch.float64).square().sum(0).cpu()
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        least = float(deviation.median().clamp_min(1e-6)) / 5
        return cls(mean.float(), deviation.clamp_min(least).float())

    def to(self, device: str) -> Self:
        """The same on a device."""
        return type(self)(self.mean.to(device), self.deviation.to(device))


class AutoencoderDetector(Detector):
    """Scores by what the network has not reconstructed; see `MSE` and `Z_MAP` above for how."""

    name: ClassVar[str] = "conv-autoencoder"

    def __init__(
        self,
        network: Autoencoder,
        settings: AutoencoderSettings,
        preprocessing: Preprocessing,
        *,
        device: str,
        max_pixels: int,
        statistics: ErrorStatistics | None = None,
    ) -> None:
        if (preprocessing.width, preprocessing.height) != (settings.width, settings.height):
            raise ValueError("the preprocessing's size is not the network's")
        disable_tf32(device)
        self.architecture = Architecture(name=self.name, settings=asdict(settings))
        self.score_method = settings.score
        self.preprocessing = preprocessing
        self.max_pixels = max_pixels
        self.device = device
        # Channels last halves the time on a CPU, and prepared images lie that way already.
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._statistics = statistics.to(device) if statistics else None

    @classmethod
    def input_size(cls, size: tuple[int, int], side: int | None) -> tuple[int, int]:
        """See `Detector.input_size`: a square, whatever the image's shape."""
        side = 128 if side is None else side
        if side % 8:
            raise ValueError(f"the sides must be multiples of 8 pixels, not {side}")
        return side, side

    @classmethod
    def fit(
        cls,
        training: PreparedImages,
        validation: PreparedImages,
        preprocessing: Preprocessing,
        options: FitOptions,
        *,
        device: str,
        max_pixels: int,
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None = None,
    ) -> Self:
        """See `Detector.fit`, and `TrainingLoop` for how."""
        score = options.score_method or Z_MAP
        settings = AutoencoderSettings(width=preprocessing.width, height=preprocessing.height, score=score)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network = Autoencoder(settings)
        detector = cls(network, settings, preprocessing, device=device, max_pixels=max_pixels)

        def epoch(random: np.random.Generator) -> Iterator[Tensor]:
            order = random.permutation(len(training)).tolist()
            for some in training.minibatches(options.batch_size, order):
                yield augment_batch(to_input_tensor(list(some), device), random, flips=options.flips)

        course = TrainingLoop(network, options, device)
        course.run(epoch, lambda: detector.mean_squared_error(validation), on_epoch, checkpoint)
        if score == Z_MAP:
            with torch.inference_mode():
                errors = (detector.light_corrected_error(list(some)) for some in training.minibatches(_CHUNK[device]))
                detector._statistics = ErrorStatistics.of(errors).to(device)
        return detector

    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        """See `Detector.score`.

        With `mse` the map is the squared error of each pixel, 0 to 1, and the score its mean. With `z-map` it is by how
        many standard deviations the error of a place exceeds that of good parts, and the score the mean of its top.
        """
        scores = np.empty(len(images), dtype=np.float64)
        maps = np.empty((len(images), self.preprocessing.height, self.preprocessing.width), dtype=np.float32)
        step = _CHUNK[self.device]
        with torch.inference_mode():
            for start in range(0, len(images), step):
                found, errors = self._judge(images[start : start + step])
                scores[start : start + step] = found.cpu().numpy()
                maps[start : start + step] = errors.cpu().numpy()
        return ScoredImages(scores, maps)

    def _judge(self, images: Sequence[PreparedImage]) -> tuple[Tensor, Tensor]:
        if self._statistics is None:
            errors = self.squared_error(images)
            return errors.mean(dim=(1, 2), dtype=torch.float64), errors
        deviations = (self.light_corrected_error(images) - self._statistics.mean) / self._statistics.deviation
        cells = deviations.flatten(1)
        top = cells.topk(max(round(_TOP * cells.shape[1]), 1), dim=1).values
        return top.mean(dim=1, dtype=torch.float64), deviations.clamp_min(0)

    def diagnosis(self, image: PreparedImage) -> dict[str, NDArray[Any]]:
        """See `Detector.diagnosis`. The residue is |image - reconstruction|, averaged over the channels, 0 to 255."""
        with torch.inference_mode():
            reconstructed = self.network(to_input_tensor([image], self.device))[0].permute(1, 2, 0).cpu().numpy() * 255
        residue = np.abs(image - reconstructed).mean(axis=2, dtype=np.float32)
        panels = {"reconstruction": reconstructed.round().astype(np.uint8), "residue": residue}
        return {**panels, **super().diagnosis(image)}

    def squared_error(self, images: Sequence[PreparedImage]) -> Tensor:
        """(image - reconstruction)², averaged over the channels: float32, (N, height, width), 0 to 1."""
        original = to_input_tensor(images, self.device)
        reconstructed: Tensor = self.network(original)
        return (original - reconstructed).square().mean(dim=1)

    def light_corrected_error(self, images: Sequence[PreparedImage]) -> Tensor:
        """The squared error that is left after the light is fitted, in variances of the image; like `squared_error`.

        A gain and an offset of the reconstruction are fitted by least squares; then 3 × 3 pixels are averaged.
        """
        original = to_input_tensor(images, self.device)
        reconstructed: Tensor = self.network(original)
        axes = (1, 2, 3)
        wanted = original - original.mean(axes, keepdim=True)
        given = reconstructed - reconstructed.mean(axes, keepdim=True)
        gain = (wanted * given).mean(axes, keepdim=True) / given.square().mean(axes, keepdim=True).clamp_min(1e-6)
        variance = wanted.square().mean(axes, keepdim=True).clamp_min(1e-4)
        errors = ((wanted - gain * given).square() / variance).mean(dim=1, keepdim=True)
        return nn.functional.avg_pool2d(errors, 3, stride=1, padding=1, count_include_pad=False)[:, 0]

    def mean_squared_error(self, images: PreparedImages) -> float:
        """Over many images."""
        with torch.inference_mode():
            means = [
                self.squared_error(list(some)).mean(dim=(1, 2), dtype=torch.float64)
                for some in images.minibatches(_CHUNK[self.device])
            ]
        return float(torch.cat(means).mean())

    def save(self) -> dict[str, bytes]:
        """`weights.safetensors`: float32, the names of a plain state dict, and `errors.*` for a z-map."""
        weights = dict(self.network.state_dict())
        if self._statistics is not None:
            weights |= {_MEAN: self._statistics.mean, _DEVIATION: self._statistics.deviation}
        return {WEIGHTS: save_tensors({name: weight.cpu().contiguous() for name, weight in weights.items()})}

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
            statistics = _statistics(weights, settings) if settings.score == Z_MAP else None
            return cls(
                network_from_state_dict(settings, weights),
                settings,
                preprocessing,
                device=device,
                max_pixels=max_pixels,
                statistics=statistics,
            )
        except (KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise InvalidBundle(f"the bundle's {cls.name} cannot be built: {error}") from error


_MEAN: Final = "errors.mean"
_DEVIATION: Final = "errors.deviation"


def _statistics(weights: dict[str, Tensor], settings: AutoencoderSettings) -> ErrorStatistics:
    """Take the statistics of a z-map out of a bundle's tensors."""
    found = ErrorStatistics(weights.pop(_MEAN), weights.pop(_DEVIATION))
    shape = (settings.height, settings.width)
    if found.mean.shape != shape or found.deviation.shape != shape or not bool((found.deviation > 0).all()):
        raise ValueError("the statistics of the z-map do not fit the image")
    return found


def augment_batch(images: Tensor, random: np.random.Generator, *, flips: bool) -> Tensor:
    """Vary good parts as a fixture and a lamp would: a gain of 0.95 to 1.05, an offset of ±0.02, a shift of ±2 pixels.

    Nothing stronger: what is shown here as normal is not found later. Images are float32, (N, 3, height, width), 0 to
    1, and stay so; a shift repeats the edge. With `flips`, half of them are mirrored along each axis.
    """
    count, _, height, width = images.shape
    gain = torch.from_numpy(random.uniform(0.95, 1.05, (count, 1, 1, 1)).astype(np.float32)).to(images.device)
    offset = torch.from_numpy(random.uniform(-0.02, 0.02, (count, 1, 1, 1)).astype(np.float32)).to(images.device)
    shifts = random.integers(0, 5, (count, 2))
    mirrored = random.random((count, 2)) < 0.5
    padded = nn.functional.pad(images, (2, 2, 2, 2), mode="replicate")
    varied = []
    for image, (down, right), mirror in zip(padded, shifts.tolist(), mirrored.tolist(), strict=True):
        cut = image[:, down : down + height, right : right + width]
        varied.append(cut.flip([axis + 1 for axis in (0, 1) if mirror[axis]]) if flips else cut)
    shifted = torch.stack(varied).contiguous(memory_format=torch.channels_last)
    return (shifted * gain + offset).clamp(0, 1)


def network_from_state_dict(settings: AutoencoderSettings, weights: Mapping[str, Tensor]) -> Autoencoder:
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
