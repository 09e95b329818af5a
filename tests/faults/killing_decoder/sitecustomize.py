"""On the module path of a system under test: decoding an image with the text `kill` ends the process.

No image is known that crashes the decoders of today's Pillow; one will be found some day.
"""

import os
import signal
from typing import Any

from PIL import ImageFile

_load = ImageFile.ImageFile.load


def _load_or_die(self: ImageFile.ImageFile) -> Any:
    if "kill" in self.info:
        os.kill(os.getpid(), signal.SIGKILL)
    return _load(self)


ImageFile.ImageFile.load = _load_or_die  # type: ignore[method-assign]
