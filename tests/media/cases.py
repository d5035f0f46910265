"""What the stand-in is compared on: calls of torchvision's functions and transformers' processors with fixed pixels.

Imported by the tests (on the stand-in) and by `make_reference.py` (on a real torchvision).
"""

import importlib

import numpy as np
import torch


def pixels(*shape: int, seed: int = 0) -> torch.Tensor:
    """uint8 pixels that look neither flat nor like pure noise, the same on every machine."""
    at = torch.arange(int(np.prod(shape)), dtype=torch.int64)
    noise = ((at * 7919 + at * at * 31 + seed * 101) % 251).reshape(shape)
    y = torch.arange(shape[-2]).view(-1, 1) * 255 // max(shape[-2] - 1, 1)
    x = torch.arange(shape[-1]).view(1, -1) * 255 // max(shape[-1] - 1, 1)
    return ((noise + 2 * y + x) // 4).clamp(0, 255).to(torch.uint8)


def function_cases() -> dict:
    """name → a call on (the functional module, the older functional module)."""
    small, batch = pixels(3, 13, 19), pixels(2, 2, 3, 7, 10, seed=3)
    real = pixels(3, 9, 13, seed=1).float() / 255
    cases = {}
    for mode in ('NEAREST', 'NEAREST_EXACT', 'BILINEAR', 'BICUBIC', 'LANCZOS'):
        for size in ([6, 9], [19, 26], [5, 26]):
            for kind, image in (('uint8', small), ('float', real)):
                for antialias in (True, False) if mode in ('BILINEAR', 'BICUBIC') else (True,):
                    cases[f'resize {mode} {size} {kind} {antialias}'] = (
                        lambda f, old, image=image, size=size, mode=mode, antialias=antialias: f.resize(
                            image, size, interpolation=f.InterpolationMode[mode], antialias=antialias
                        )
                    )
    cases |= {
        'resize shorter edge': lambda f, old: f.resize(small, [8]),
        'resize longer edge': lambda f, old: f.resize(small, [15], max_size=17),
        'resize longer edge alone': lambda f, old: f.resize(small, None, max_size=29),
        'resize tall': lambda f, old: f.resize(small.mT, 8),
        'resize int32': lambda f, old: f.resize(small.int(), [8, 8]),
        'resize half': lambda f, old: f.resize(real.half(), [8, 8]).float(),
        'resize batch': lambda f, old: f.resize(batch, [5, 6], f.InterpolationMode.BICUBIC),
        'resize old': lambda f, old: old.resize(small, [6, 9], interpolation=old.InterpolationMode.BICUBIC),
        'resize old bilinear': lambda f, old: old.resize(small, [6, 9]),
        'pad': lambda f, old: f.pad(batch, [1, 2, 3, 4], fill=7),
        'pad two': lambda f, old: f.pad(small, [1, 2]),
        'pad colors': lambda f, old: f.pad(small, [1, 2, 3, 0], fill=[1.0, 20.0, 99.9]),
        'pad negative': lambda f, old: f.pad(small, [-1, 2, -3, 4], fill=7),
        'pad edge': lambda f, old: f.pad(small, [2, 1, 3, 5], padding_mode='edge'),
        'pad reflect': lambda f, old: f.pad(batch, [2, 1, 3, 5], padding_mode='reflect'),
        'pad symmetric': lambda f, old: f.pad(small, [2, 1, 3, 5], padding_mode='symmetric'),
        'crop': lambda f, old: f.crop(batch, 1, 2, 4, 5),
        'crop outside': lambda f, old: f.crop(small, -3, 20, 9, 9),
        'center crop': lambda f, old: f.center_crop(small, [10, 12]),
        'center crop larger': lambda f, old: f.center_crop(small, [20, 12]),
        'normalize': lambda f, old: f.normalize(real, [0.48, 0.45, 0.4], [0.26, 0.27, 0.28]),
        'to float': lambda f, old: f.to_dtype(small, torch.float32, scale=True),
        'to uint8': lambda f, old: f.to_dtype(real, torch.uint8, scale=True),
        'to int32': lambda f, old: f.to_dtype_image(small, torch.int32, scale=True),
        'gray': lambda f, old: f.rgb_to_grayscale(batch),
        'gray 3': lambda f, old: f.rgb_to_grayscale(real, num_output_channels=3),
        'rgb': lambda f, old: f.grayscale_to_rgb(small[:1]),
        'blur': lambda f, old: f.gaussian_blur(small, [5, 3]),
        'blur float': lambda f, old: f.gaussian_blur(real, [3, 7], [0.8, 1.7]),
        'pil': lambda f, old: f.pil_to_tensor(f.to_pil_image(small)),
        'pil float': lambda f, old: f.pil_to_tensor(f.to_pil_image(real[:1])),
        'pil resize': lambda f, old: f.to_image(f.resize(f.to_pil_image(small), [8, 8], f.InterpolationMode.BICUBIC)),
        'tensor': lambda f, old: old.to_tensor(old.to_pil_image(small)),
    }
    return cases


VIDEO_PROCESSORS = (
    'Glm4vVideoProcessor',
    'InternVLVideoProcessor',
    'LlavaNextVideoVideoProcessor',
    'LlavaOnevisionVideoProcessor',
    'Qwen2VLVideoProcessor',
    'Qwen3VLVideoProcessor',
    'SmolVLMVideoProcessor',
    'VideoLlama3VideoProcessor',
    'VideoLlavaVideoProcessor',
)
IMAGE_PROCESSORS = (
    'CLIPImageProcessor',
    'Gemma3ImageProcessor',
    'GotOcr2ImageProcessor',
    'Idefics3ImageProcessor',
    'LlavaNextImageProcessor',
    'LlavaOnevisionImageProcessor',
    'MllamaImageProcessor',
    'PixtralImageProcessor',
    'Qwen2VLImageProcessor',
    'SiglipImageProcessor',
)


def processor_cases() -> dict:
    """name → a call that makes the processor and runs it: the pixels that the model would see."""
    frames = pixels(6, 3, 90, 125, seed=5)
    image = pixels(3, 233, 310, seed=9)
    cases = {name: (lambda name=name: run_video(name, frames)) for name in VIDEO_PROCESSORS}
    return cases | {name: (lambda name=name: run_image(name, image)) for name in IMAGE_PROCESSORS}


def run_video(name: str, frames: torch.Tensor, **settings) -> torch.Tensor:
    """The pixels of one clip (uint8 [T, 3, H, W]) by a video processor with its class's settings."""
    processor = getattr(importlib.import_module('transformers'), name)(**settings)
    count = len(frames)
    facts = {'total_num_frames': count, 'fps': 2.0, 'duration': count / 2, 'frames_indices': list(range(count))}
    facts |= {'height': frames.shape[-2], 'width': frames.shape[-1]}
    out = processor([frames], video_metadata=[facts], do_sample_frames=False, return_tensors='pt')
    return _pixels_of(out)


def run_image(name: str, image: torch.Tensor, **settings) -> torch.Tensor:
    """The pixels of one image (uint8 [3, H, W], given as a PIL image) by an image processor with its class's settings."""
    from PIL import Image

    processor = getattr(importlib.import_module('transformers'), name)(**settings)
    return _pixels_of(processor(Image.fromarray(image.permute(1, 2, 0).numpy()), return_tensors='pt'))


def _pixels_of(out) -> torch.Tensor:
    value = next(value for key, value in out.items() if key.startswith(('pixel_values', 'flattened_patches')))
    while isinstance(value, (list, tuple)):
        value = value[0]
    return torch.as_tensor(value).float()


def sampled(values: torch.Tensor, count: int = 30) -> np.ndarray:
    """`count` values spread over a tensor, its mean, its mean square, and its shape."""
    flat = values.flatten().double()
    at = torch.linspace(0, len(flat) - 1, min(count, len(flat))).round().long()
    ends = torch.stack([flat.mean(), flat.square().mean()])
    return torch.cat([flat[at], ends, torch.tensor(values.shape).double()]).float().numpy()
