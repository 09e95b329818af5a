"""Which files of a folder are images; found without the neural part, so that `linewatch submit` is quick."""

from pathlib import Path

from core.intake.image_formats import has_image_suffix


def images_in(folder: Path) -> list[Path]:
    """The images of a folder and of those in it, in the order of their names; what is hidden is left out."""
    found = (path for path in folder.rglob("*") if has_image_suffix(path.name) and path.is_file())
    visible = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())
