"""The bit depth of a training set: one for all of its images; see `core.vision.input.bit_depth`."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import Refused
from core.intake.image_decoding import Undecodable, decode_stored, read_header
from core.models.bit_depths import BitDepth, BitDepthChoice
from core.vision.input.bit_depth import EIGHT_BITS, DepthEvidence, depth_evidence, full_level
from core.vision.training.dataset import InvalidDataset, in_parallel

_FEW = 0.1


@dataclass(frozen=True)
class TrainingDepth:
    """The bit depth to train on, and lines for people about how it was chosen."""

    depth: BitDepth
    notes: list[str]


def find_training_depth(
    paths: Sequence[Path], choice: BitDepthChoice, *, max_pixels: int, progress: Callable[[int], None]
) -> TrainingDepth:
    """Find the bit depth of the images to train on. Only those of more than 8 bits are decoded.

    With `auto`, it is the depth that the files name; if they name none, the smallest that holds the levels of all
    images. Images that cannot be read do not count.

    Args:
        paths: the images; at least one.
        choice: a depth that all images must have, or `auto`.
        max_pixels: the largest accepted width times height of an image.
        progress: called with the number of images read so far.

    Raises:
        InvalidDataset: the images have different depths, or not the chosen one.
        OSError: a file cannot be read.
    """
    found: dict[Path, DepthEvidence] = {}
    for index, evidence in enumerate(in_parallel(lambda path: _evidence(path, max_pixels), paths)):
        if evidence is not None:
            found[paths[index]] = evidence
        progress(index + 1)
    if not found:  # reading the images says why
        return TrainingDepth(8 if choice == "auto" else choice, [])
    named = Counter(evidence.named for evidence in found.values() if evidence.named is not None)
    if choice != "auto":
        depth = choice
    elif named:
        depth = named.most_common(1)[0][0]
    else:
        depth = max(evidence.smallest for evidence in found.values())
    _require_one_depth(found, depth, chosen=choice != "auto")
    return TrainingDepth(depth, [] if named or choice != "auto" else _notes(found, depth))


def _evidence(path: Path, max_pixels: int) -> DepthEvidence | None:
    """Return what is known about the depth of an image; None if it cannot be read."""
    try:
        with path.open("rb") as file:
            if not read_header(file, max_pixels=max_pixels).deep_grey:
                return EIGHT_BITS
            return depth_evidence(decode_stored(file.read(), max_pixels=max_pixels).content)
    except (Refused, Undecodable):
        return None


def _require_one_depth(found: dict[Path, DepthEvidence], depth: BitDepth, *, chosen: bool) -> None:
    by_depth: dict[int, list[Path]] = {}
    for path, evidence in found.items():
        by_depth.setdefault(evidence.depth(depth), []).append(path)
    if by_depth.keys() == {depth}:
        return
    groups = ", ".join(
        f"{len(paths)} of {bits} bits (the first is {paths[0]})" for bits, paths in sorted(by_depth.items())
    )
    if chosen:
        raise InvalidDataset(
            f"the images of good parts do not all have the chosen bit depth of {depth}: there are {groups}; choose "
            "another with --bit-depth or in the recipe, or leave out the other images"
        )
    raise InvalidDataset(
        f"the images of good parts have different bit depths: there are {groups}; store all of them alike, or leave "
        "out those of the other depths"
    )


def _notes(found: dict[Path, DepthEvidence], depth: BitDepth) -> list[str]:
    """Describe a depth that was measured, and name the images that decided it if they are few."""
    note = (
        f"the files do not name their bit depth; by their highest grey levels it is {depth}, which holds levels up to "
        f"{full_level(depth)}: if the camera has another one, choose it with --bit-depth"
    )
    deciding = [path for path, evidence in found.items() if evidence.smallest == depth]
    if len(deciding) <= _FEW * len(found):
        note += f"; only {len(deciding)} of the {len(found)} images have levels so high, the first is {deciding[0]}"
    return [note]
