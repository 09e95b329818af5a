"""The reference detector: a plain convolutional autoencoder, trained from scratch.

The network learns to reconstruct good parts only, so a large reconstruction error means that a part is not normal. The
error becomes a score in one of two ways:

`mse` is the mean squared error, as in the synchronous demo. It follows the light, and the global mean dilutes small
defects. It is kept so that existing weights can be used.

`z-map` is the default when no backbone weights are installed. A gain and an offset are fitted first; then the error
at each pixel is compared with the mean and standard deviation that good parts have there.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, ClassVar, Final, Self

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from core.vision.detectors.architecture import WEIGHTS, Architecture
from core.vision.detectors.compiled_network import IS_AVAILABLE, CompiledNetwork
from core.vision.detectors.detector import Detector, ScoredImages
from core.vision.detectors.device import disable_tf32
from core.vision.detectors.image_tensors import to_device
from core.vision.errors import InvalidBundle
from core.vision.input.prepared_image import PreparedImage
from core.vision.input.record import Preprocessing
from core.vision.training.augmentation import augment_batch
from core.vision.training.cross_fitted import CrossFitted
from core.vision.training.cross_training import FoldTraining, cross_train
from core.vision.training.fit_interface import Checkpoint, Epoch, FitOptions, PreparedImages
from core.vision.training.folds import Folds
from core.vision.training.training_loop import TrainingLoop

MSE: Final = "mse"
Z_MAP: Final = "z-map"
_TOP_SHARE: Final = 0.005
# Of a layer's output for one image: 4 GiB in float32. Small weights can need more, and would end their worker.
_MAX_LAYER_VALUES: Final = 2**30
"""The score of a z-map is the mean of this share of its highest pixels."""
_CHUNK_SIZE: Final = {"cpu": 4, "cuda": 256}
"""Images in one forward pass, by device. On a CPU, glibc returns larger layers to the system after each pass, and the
next one waits for fresh pages: 32 images took twice the time of 8. On a GPU, more would overflow the memory."""


@dataclass(frozen=True)
class AutoencoderSettings:
    """The settings that the network is built from.

    Attributes:
        width, height: of the image, pixels; multiples of 8, 8 to 4096.
        channels_1, channels_2, channels_3: of the encoder's layers, 1 to 1024; fewer for large images.
        score: `mse` or `z-map`. Old bundles do not have this setting; they use `mse`.
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
        values = self.width * self.height * max(self.channels_1, self.channels_2 // 4, self.channels_3 // 16)
        if values > _MAX_LAYER_VALUES:
            raise ValueError(
                f"a layer of the network has {values} values for an image, more than {_MAX_LAYER_VALUES}: "
                "reduce the image size or the channels"
            )
        if self.score not in (MSE, Z_MAP):
            raise ValueError(f"the score must be {MSE} or {Z_MAP}, not {self.score!r}")


class Autoencoder(nn.Module):
    """Reconstructs images: float32, (N, 3, height, width), 0 to 1.

    The layer indices are part of the interface: plain state dicts name `encoder.0|3|6` and `decoder.1|4|7`.
    The decoder upsamples and then convolves, because the checkerboard pattern of transposed convolutions would enter
    the score.
    """

    def __init__(self, settings: AutoencoderSettings) -> None:
        super().__init__()
        first, second, third = settings.channels_1, settings.channels_2, settings.channels_3
        self.encoder = nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(second, third, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(third, second, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(second, first, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
            nn.Conv2d(first, 3, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct images: float32, (N, 3, height, width), 0 to 1, in and out."""
        reconstructed: Tensor = self.decoder(self.encoder(images))
        return reconstructed


def to_input_tensor(images: Sequence[PreparedImage], device: str) -> Tensor:
    """Convert prepared images to the network's input: float32, (N, 3, height, width), 0 to 1, on the device.

    This is the only place in the system that divides by 255.
    """
    return to_device(images, device).to(torch.float32) / 255


@dataclass(frozen=True)
class ErrorStatistics:
    """Mean and standard deviation of the error at each pixel, over good parts: float32, (height, width)."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def from_errors(cls, errors: Iterable[Tensor]) -> Self:
        """Compute the statistics of minibatches of errors, each (n, height, width).

        Every deviation is at least a fifth of the median deviation: a little variation is normal even where the
        training parts never varied.
        """
        count, total, squares = 0, torch.zeros(()), torch.zeros(())
        for minibatch in errors:
            count += len(minibatch)
            total = total + minibatch.sum(0, dtype=torch.float64).cpu()
            squares = squares + minibatch.to(torch.float64).square().sum(0).cpu()
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        minimum = float(deviation.median().clamp_min(1e-6)) / 5
        return cls(mean.float(), deviation.clamp_min(minimum).float())

    def to(self, device: str) -> Self:
        """Return a copy on the device."""
        return type(self)(self.mean.to(device), self.deviation.to(device))


class AutoencoderDetector(Detector):
    """Scores images by their reconstruction error. The module's docstring describes `mse` and `z-map`."""

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
            raise ValueError("the image size of the preprocessing is not that of the network")
        disable_tf32(device)
        self.architecture = Architecture(name=self.name, settings=asdict(settings))
        self.score_method = settings.score
        self.preprocessing = preprocessing
        self.max_pixels = max_pixels
        self.device = device
        # Channels last halves the time on a CPU, and prepared images already have that layout.
        self.network = network.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self._reconstruct: Callable[[Tensor], Tensor] = self.network
        self._statistics = statistics.to(device) if statistics else None

    def compile(self) -> None:
        """See `Detector.compile`."""
        if self.device == "cpu" and IS_AVAILABLE:
            shape = (3, self.preprocessing.height, self.preprocessing.width)
            compiled = CompiledNetwork(self.network, shape, cores=torch.get_num_threads())
            self._reconstruct = lambda images: compiled(images)[0]

    @classmethod
    def input_size(cls, size: tuple[int, int], side: int | None, backbone: str) -> tuple[int, int]:
        """See `Detector.input_size`. Always a square, whatever the shape of the image."""
        side = 128 if side is None else side
        if side % 8:
            raise ValueError(f"the sides must be multiples of 8 pixels, not {side}")
        return side, side

    @classmethod
    def folds(cls) -> int:
        """See `Detector.folds`."""
        return 3

    @classmethod
    def cross_fit(
        cls,
        images: PreparedImages,
        folds: Folds,
        preprocessing: Preprocessing,
        options: FitOptions,
        *,
        device: str,
        max_pixels: int,
        on_epoch: Callable[[Epoch], None],
        checkpoint: Checkpoint | None = None,
    ) -> CrossFitted[Self]:
        """See `Detector.cross_fit` and `TrainingLoop`."""
        train = partial(
            cls._train,
            images=images,
            preprocessing=preprocessing,
            options=options,
            device=device,
            max_pixels=max_pixels,
        )
        return cross_train(folds, train, options.epochs, on_epoch, checkpoint)

    @classmethod
    def _train(
        cls,
        task: FoldTraining,
        *,
        images: PreparedImages,
        preprocessing: Preprocessing,
        options: FitOptions,
        device: str,
        max_pixels: int,
    ) -> Self:
        score = options.score_method or Z_MAP
        settings = AutoencoderSettings(width=preprocessing.width, height=preprocessing.height, score=score)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            network = Autoencoder(settings)
        detector = cls(network, settings, preprocessing, device=device, max_pixels=max_pixels)

        def epoch(random: np.random.Generator) -> Iterator[Tensor]:
            order = random.permutation(task.training).tolist()
            for minibatch in images.minibatches(options.batch_size, order):
                yield augment_batch(to_input_tensor(list(minibatch), device), random, flips=options.flips)

        validate = task.validation(lambda chosen: detector.mean_squared_error(images, chosen))
        TrainingLoop(network, options, device).run(epoch, validate, task.on_epoch, task.checkpoint)
        if score == Z_MAP:
            with torch.inference_mode():
                chunks = images.minibatches(_CHUNK_SIZE[device], task.training)
                errors = (detector.light_corrected_error(list(chunk)) for chunk in chunks)
                detector._statistics = ErrorStatistics.from_errors(errors).to(device)
        return detector

    def score(self, images: Sequence[PreparedImage]) -> ScoredImages:
        """See `Detector.score`.

        With `mse`, the map is the squared error of each pixel, 0 to 1, and the score is its mean. With `z-map`, the map
        says by how many standard deviations the error of each pixel exceeds that of good parts, and the score is the
        mean of the highest 0.5 % of pixels.
        """
        scores = np.empty(len(images), dtype=np.float64)
        maps = np.empty((len(images), self.preprocessing.height, self.preprocessing.width), dtype=np.float32)
        step = _CHUNK_SIZE[self.device]
        with torch.inference_mode():
            for start in range(0, len(images), step):
                chunk_scores, chunk_maps = self._score_chunk(images[start : start + step])
                scores[start : start + step] = chunk_scores.cpu().numpy()
                maps[start : start + step] = chunk_maps.cpu().numpy()
        return ScoredImages(scores, maps)

    def _score_chunk(self, images: Sequence[PreparedImage]) -> tuple[Tensor, Tensor]:
        if self._statistics is None:
            errors = self.squared_error(images)
            return errors.mean(dim=(1, 2), dtype=torch.float64), errors
        deviations = (self.light_corrected_error(images) - self._statistics.mean) / self._statistics.deviation
        pixels = deviations.flatten(1)
        top = pixels.topk(max(round(_TOP_SHARE * pixels.shape[1]), 1), dim=1).values
        return top.mean(dim=1, dtype=torch.float64), deviations.clamp_min(0)

    def diagnosis(self, image: PreparedImage) -> dict[str, NDArray[Any]]:
        """See `Detector.diagnosis`. The residue is |image - reconstruction|, the mean of the channels, 0 to 255."""
        with torch.inference_mode():
            reconstructed = self.network(to_input_tensor([image], self.device))[0].permute(1, 2, 0).cpu().numpy() * 255
        residue = np.abs(image - reconstructed).mean(axis=2, dtype=np.float32)
        panels = {"reconstruction": reconstructed.round().astype(np.uint8), "residue": residue}
        return {**panels, **super().diagnosis(image)}

    def squared_error(self, images: Sequence[PreparedImage]) -> Tensor:
        """Return (image - reconstruction)², the mean of the channels: float32, (N, height, width), 0 to 1."""
        original = to_input_tensor(images, self.device)
        reconstructed = self._reconstruct(original)
        return (original - reconstructed).square().mean(dim=1)

    def light_corrected_error(self, images: Sequence[PreparedImage]) -> Tensor:
        """Return the squared error that remains after correcting for the light: float32, (N, height, width).

        A gain and an offset of the reconstruction are fitted by least squares. The squared error is divided by the
        variance of the image, then averaged over 3 × 3 pixels.
        """
        original = to_input_tensor(images, self.device)
        reconstructed = self._reconstruct(original)
        axes = (1, 2, 3)
        target = original - original.mean(axes, keepdim=True)
        output = reconstructed - reconstructed.mean(axes, keepdim=True)
        gain = (target * output).mean(axes, keepdim=True) / output.square().mean(axes, keepdim=True).clamp_min(1e-6)
        variance = target.square().mean(axes, keepdim=True).clamp_min(1e-4)
        errors = ((target - gain * output).square() / variance).mean(dim=1, keepdim=True)
        return nn.functional.avg_pool2d(errors, 3, stride=1, padding=1, count_include_pad=False)[:, 0]

    def mean_squared_error(self, images: PreparedImages, indices: Sequence[int]) -> float:
        """Return the mean squared error over the images with these indices."""
        with torch.inference_mode():
            means = [
                self.squared_error(list(chunk)).mean(dim=(1, 2), dtype=torch.float64)
                for chunk in images.minibatches(_CHUNK_SIZE[self.device], indices)
            ]
        return float(torch.cat(means).mean())

    def save(self) -> dict[str, bytes]:
        """Return `weights.safetensors`: float32, named as in a plain state dict, and `errors.*` for a z-map."""
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
            statistics = _pop_statistics(weights, settings) if settings.score == Z_MAP else None
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


def _pop_statistics(weights: dict[str, Tensor], settings: AutoencoderSettings) -> ErrorStatistics:
    """Remove the statistics of a z-map from a bundle's tensors and return them."""
    statistics = ErrorStatistics(weights.pop(_MEAN), weights.pop(_DEVIATION))
    mean, deviation = statistics.mean, statistics.deviation
    shape = (settings.height, settings.width)
    if mean.shape != shape or deviation.shape != shape or not bool((deviation > 0).all()):
        raise ValueError("the statistics of the z-map do not fit the image")
    return statistics


def network_from_state_dict(settings: AutoencoderSettings, weights: Mapping[str, Tensor]) -> Autoencoder:
    """Build the network with the weights of a plain state dict, in float32.

    Raises:
        ValueError: a name or a shape does not fit the network, or a value is not finite.
    """
    with torch.device("meta"):  # spends neither memory nor random numbers on weights that are replaced
        network = Autoencoder(settings)
    expected = network.state_dict()
    if weights.keys() != expected.keys():
        first = min(weights.keys() ^ expected.keys())
        verb = "lacks" if first in expected else "has an unexpected"
        raise ValueError(f"the state dict {verb} {first!r}: the network has {', '.join(expected)}")
    for name, weight in weights.items():
        if weight.shape != expected[name].shape:
            raise ValueError(f"{name} has the shape {tuple(weight.shape)}, not {tuple(expected[name].shape)}")
        if not weight.is_floating_point() or not torch.isfinite(weight).all():
            raise ValueError(f"{name} holds values that are not finite floating-point numbers")
    network.load_state_dict({name: weight.to(torch.float32) for name, weight in weights.items()}, assign=True)
    return network
