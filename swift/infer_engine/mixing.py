"""Rows of different LoRA adapters in one forward, the base model's among them.

The model runs without adapters, and every adapted layer gets its tokens' own additions: the matrices of all adapters
lie side by side, one product takes every token through all of them, and what isn't the token's own is set to zero in
between. So the cost does not grow with the number of adapters but for the width of that product.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swift.core.log import get_logger

Runs = list[tuple[str | None, int]]
"""Adapters of the tokens of a flat forward, each with the number of tokens that follow one another; None: the base."""


class Mix:
    """Additions of the adapters of a model. `assign` says whose the tokens of the next forward are."""

    def __init__(self, model: Any):
        from peft.tuners.lora import LoraLayer

        self._model = model
        self._layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        self._names: list[str] = []
        self._stacks: dict[Any, tuple[Tensor, Tensor, tuple] | None] = {}
        """Layer → the matrices side by side (the second ones times their scale), and (index of the adapter, its rank) for each."""
        self._owners = self._of_ends = None
        """Index of each token's adapter, -1 for the base: of all tokens, and of those whose logits are asked for."""
        self._masks: dict[Any, Tensor] = {}

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within this block the model's forward adds what `assign` said."""
        handles = [layer.register_forward_hook(self._add) for layer in self._layers]
        try:
            with self._model.disable_adapter():
                yield
        finally:
            for handle in handles:
                handle.remove()

    def assign(self, runs: Runs) -> None:
        """Whose the tokens of the next forward are; the last of each run is the one whose logits count."""
        wanted = {name for name, _ in runs if name is not None}
        self._masks = {}
        if not wanted:
            self._owners = None
            return
        if not wanted <= set(self._names) or len(self._names) > 2 * len(wanted) + 4:
            self._names, self._stacks = sorted(wanted), {}
        place = {name: index for index, name in enumerate(self._names)}
        own = [place.get(name, -1) for name, _ in runs]
        self._of_ends = torch.tensor(own)
        self._owners = torch.tensor([index for index, (_, count) in zip(own, runs, strict=True) for _ in range(count)])

    def _add(self, layer: Any, args: tuple, output: Tensor) -> Tensor:
        if self._owners is None:
            return output
        if layer not in self._stacks:
            self._stacks[layer] = _stack(layer, self._names)
        if (stack := self._stacks[layer]) is None:
            return output
        down, up, blocks = stack
        inner = F.linear(args[0].to(down.dtype), down)
        inner = inner.masked_fill(self._mask(inner, blocks), 0)
        return (output + F.linear(inner, up)).to(output.dtype)

    def _mask(self, inner: Tensor, blocks: tuple) -> Tensor:
        """[1, tokens, width of all adapters] True where the product is not the token's own."""
        owners = next((each for each in (self._owners, self._of_ends) if inner.shape[:-1] == (1, len(each))), None)
        if owners is None:
            raise RuntimeError(f'a layer sees {tuple(inner.shape[:-1])} of {len(self._owners)} tokens')
        key = (len(owners), blocks, inner.device)
        if key not in self._masks:
            columns = torch.tensor([index for index, rank in blocks for _ in range(rank)])
            self._masks[key] = (owners[None, :, None] != columns).to(inner.device)
        return self._masks[key]


def _stack(layer: Any, names: list[str]) -> tuple[Tensor, Tensor, tuple] | None:
    own = [(index, name) for index, name in enumerate(names) if name in layer.lora_A]
    if not own:
        return None
    down = torch.cat([layer.lora_A[name].weight for _, name in own])
    up = torch.cat([layer.lora_B[name].weight * layer.scaling[name] for _, name in own], dim=1)
    return down, up, tuple((index, layer.lora_A[name].weight.shape[0]) for index, name in own)


def mixes(model: Any, name: str) -> bool:
    """Whether this adapter of the model can share forwards: all it does is to add plain low-rank products.

    The kinds that do more (DoRA, modules saved whole, trained biases or tokens, prompts) are told by their settings and
    layers; then a short text is read in both ways and compared. Leaves another adapter active: the caller puts on what it needs.
    """
    try:
        if not _plain(model, name):
            return False
        vocab = model.get_input_embeddings().weight.shape[0]
        ids = torch.tensor([[(7 * i + 3) % vocab for i in range(7)]], device=model.device)
        mix = Mix(model)
        with torch.no_grad():
            model.set_adapter(name)
            expected = model(input_ids=ids, use_cache=False).logits.float()
            with mix.on():
                mix.assign([(name, ids.shape[1])])
                actual = model(input_ids=ids, use_cache=False).logits.float()
    except Exception as error:  # whatever a foreign model's or adapter's code raises here means: not this way
        get_logger().debug('adapter %s does not share forwards: %s', name, error)
        return False
    spread = (expected.max() - expected.min()).clamp_min(1e-6)
    return ((actual - expected).abs().max() / spread).item() <= (1e-4 if model.dtype == torch.float32 else 0.05)


def _plain(model: Any, name: str) -> bool:
    from peft.tuners.lora import LoraLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    config = model.peft_config[name]
    if config.peft_type != 'LORA' or config.bias != 'none':
        return False
    for module in model.modules():
        if isinstance(module, AuxiliaryTrainingWrapper) and name in module._adapters:
            return False
        if isinstance(module, LoraLayer) and not _plain_layer(module, name):
            return False
    return True


def _plain_layer(layer: Any, name: str) -> bool:
    if layer.merged or name in layer.lora_embedding_A or name in layer.lora_variant:
        return False
    if name not in layer.lora_A:
        return True
    pair = layer.lora_A[name], layer.lora_B[name]
    return all(isinstance(half, torch.nn.Linear) and half.bias is None for half in pair)
