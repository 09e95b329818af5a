"""Import plain state dicts of the reference network, for `linewatch models import FILE.pth`."""

from core.vision.bundle.state_dict import import_state_dict

__all__ = ["import_state_dict"]
