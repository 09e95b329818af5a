"""Networks compiled for the cores of this machine by OpenVINO, which fuses layers and plans their memory.

One image at a time and one core for each: that keeps an image's layers in the caches of a core, and several images are
scored at once by calls from several threads. On a GPU, or where OpenVINO is not installed, torch runs the network.
"""

import importlib.util
import warnings
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import torch
import torch.jit._recursive as _recursive
from numpy.typing import NDArray
from torch import Tensor, nn

IS_AVAILABLE: Final = importlib.util.find_spec("openvino") is not None


class NotCompiled(Exception):  # noqa: N818 - it names the state of the network
    """OpenVINO cannot compile a network."""


class CompiledNetwork:
    """A frozen network, compiled once for each core. Thread-safe.

    A copy for a single core computes in the thread that calls it. One copy for all cores would hand each image to
    threads of its own, and take a sixth longer. The outputs differ from torch's by about 1e-6, relative, because sums
    are in another order.
    """

    def __init__(self, network: nn.Module, image_shape: tuple[int, int, int], *, cores: int) -> None:
        """Compile a network; takes a second or two.

        Args:
            network: on the CPU, in evaluation mode; maps (1, channels, height, width) to a tensor or a list of tensors.
            image_shape: (channels, height, width).
            cores: the number of calls that compute at once; others wait.

        Raises:
            NotCompiled: OpenVINO cannot compile it.
        """
        import openvino  # only where a network is compiled
        from openvino.frontend import OpConversionFailure

        shape = [1, *image_shape]
        options = {"NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        options["ENABLE_CPU_PINNING"] = False  # other processes use the cores, too
        self._free: SimpleQueue[Any] = SimpleQueue()
        try:
            model = _converted(network, torch.zeros(shape))
            model.reshape(shape)
            for _ in range(cores):
                self._free.put(openvino.Core().compile_model(model, "CPU", options).create_infer_request())
        except (RuntimeError, OpConversionFailure) as error:  # RuntimeError: of torch's tracing as well
            raise NotCompiled(str(error).strip().splitlines()[-1]) from error

    def __call__(self, images: Tensor) -> list[Tensor]:
        """Compute the outputs for N images: float32, each (N, …)."""
        request = self._free.get()
        try:
            rows = [_outputs(request, image) for image in images.numpy()[:, np.newaxis]]
        finally:
            self._free.put(request)
        return [torch.from_numpy(np.concatenate(parts)) for parts in zip(*rows, strict=True)]


def _outputs(request: Any, image: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Compute the outputs for one image; copies, because the next call overwrites the originals."""
    outputs = request.infer({0: np.ascontiguousarray(image)}, share_inputs=True, share_outputs=True)
    return [output.copy() for output in outputs.values()]


def _converted(network: nn.Module, example: Tensor) -> Any:
    """Convert a network to OpenVINO's format, without its converter's telemetry.

    torch.jit is deprecated, but torch.export takes 3 s and 200 MB more for its first network.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # tracing is deprecated, and warns of shapes that become constants
        traced = torch.jit.trace(network, example, check_trace=False)  # type: ignore[no-untyped-call]
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced, example_input=(example,))  # must live until it is converted
        try:
            return frontend.convert(frontend.load(decoder))
        finally:
            # Both would keep something of every network that was ever traced: 0.1 MB of the reference network.
            torch._C._jit_clear_class_registry()
            _recursive.concrete_type_store = _recursive.ConcreteTypeStore()
