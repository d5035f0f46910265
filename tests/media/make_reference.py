"""Write data/vision.npz: the numbers of a real torchvision, which the stand-in is tested against.

Run it as `python -m tests.media.make_reference` in an environment with transformers and torchvision, but not the package
itself. A torchvision that lacks its compiled part (a CUDA build beside a CPU torch) will do: the two operators that its import
asks for are declared first, and no case calls them.
"""

from pathlib import Path

import numpy as np
import torch

try:
    import torchvision
except RuntimeError:
    library = torch.library.Library('torchvision', 'DEF')
    library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
    import torchvision
from torchvision.transforms import functional as old
from torchvision.transforms.v2 import functional as new

from tests.media import cases


def main() -> None:
    assert getattr(torchvision, '__file__', None), 'this is the stand-in, not torchvision'
    numbers = {name: call(new, old).numpy() for name, call in cases.function_cases().items()}
    numbers |= {name: cases.sampled(call()) for name, call in cases.processor_cases().items()}
    path = Path(__file__).with_name('data') / 'vision.npz'
    np.savez_compressed(path, **numbers)
    print(f'{path.name}: {len(numbers)} cases, {path.stat().st_size} bytes, torchvision {torchvision.__version__}')


if __name__ == '__main__':
    main()
