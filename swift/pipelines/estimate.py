"""How much memory one training step needs on one device, from a model's configuration alone.

An estimate, not a promise: within about a third of the truth for decoder-only transformers (a test compares it with the
bytes that autograd really saves). Sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DTYPE_BYTES = {'float32': 4, 'bfloat16': 2, 'float16': 2, 'float64': 8}

OPTIMIZER_STATES = {
    'adamw_torch': 2.0, 'adamw_torch_fused': 2.0, 'adamw_apex_fused': 2.0, 'adam': 2.0, 'adamw_bnb_8bit': 0.5, 'adamw_8bit': 0.5,
    'paged_adamw_8bit': 0.5, 'paged_adamw_32bit': 2.0, 'adafactor': 0.05, 'sgd': 0.0, 'adagrad': 1.0, 'rmsprop': 1.0,
    'lion_32bit': 1.0, 'lion_8bit': 0.25, 'muon': 1.0,
}  # fmt: skip
"""Full-size states an optimizer keeps for each trained parameter, in units of 4-byte floats."""

LOGITS_BUDGET = 64 * 2**20
"""Floats of logits that are alive at once: the head works in chunks beyond that."""


@dataclass(frozen=True)
class Tower:
    """What reads images or sounds in a micro-batch: its configuration, the positions (patches, frames) it computes, whether
    gradients flow through it, and whether its layers are computed again for backward."""

    config: Any
    positions: int
    learns: bool
    checkpointing: bool = False


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one device."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    reference: int = 0
    """Weights of a reference model that is held beside the one that learns."""
    towers: int = 0
    """Activations of vision and audio towers."""

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.reference + self.towers

    def lines(self) -> list[str]:
        """For people: one line a part."""
        names = ('weights', 'gradients', 'optimizer', 'activations', 'towers', 'logits', 'reference')
        parts = [(name, getattr(self, name)) for name in names if name not in ('reference', 'towers') or getattr(self, name)]
        return [f'{name:<12}{human(size):>10}' for name, size in parts] + [f'{"total":<12}{human(self.total):>10}']


def human(size: float) -> str:
    """1536 → '1.5 KiB'."""
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if abs(size) < 1024 or unit == 'GiB':
            return f'{size:.0f} {unit}' if unit == 'B' else f'{size:.1f} {unit}'
        size /= 1024
    raise AssertionError


def estimate_memory(
    config: Any,
    *,
    parameters: int,
    trainable: int,
    dtype: str = 'float32',
    tokens: int,
    labelled_tokens: int | None = None,
    gradient_checkpointing: bool = False,
    optim: str = 'adamw_torch',
    lora_rank: int | None = None,
    reference: bool = False,
    towers: Sequence[Tower] = (),
) -> MemoryEstimate:
    """Memory of one micro-batch of `tokens` tokens.

    Args:
        config: transformers configuration (its text part when it has one); only sizes are read.
        parameters: all parameters; trainable: those with gradients.
        dtype: of the weights and activations. Trained LoRA weights are float32 unless asked otherwise.
        labelled_tokens: tokens whose logits are needed (default: all).
        lora_rank: None when the whole model is trained.
        reference: a frozen model of the same size lies beside it.
        towers: what they compute for the media of the micro-batch.
    """
    size = DTYPE_BYTES.get(dtype, 4)
    config = part_of(config, 'text_config') or config
    layers = _get(config, 'num_hidden_layers', 'n_layer', 'num_layers', default=1)
    vocabulary = _get(config, 'vocab_size', default=0)
    per_layer = _layer_elements(config, lora_rank is None)
    hidden = _get(config, 'hidden_size', 'n_embd', 'd_model', default=0)
    if gradient_checkpointing:
        activations = tokens * size * (layers * hidden + per_layer)
    else:
        activations = tokens * size * layers * per_layer
    trained_size = size if lora_rank is None else 4
    head = min((labelled_tokens if labelled_tokens is not None else tokens) * vocabulary, LOGITS_BUDGET)
    return MemoryEstimate(
        weights=(parameters - trainable) * size + trainable * trained_size,
        gradients=trainable * trained_size,
        optimizer=int(trainable * 4 * OPTIMIZER_STATES.get(optim, 2.0)),
        activations=int(activations),
        logits=int(head * 4 * 3),  # logits, their softmax, and the gradient of the logits
        reference=parameters * size if reference else 0,
        towers=sum(_tower_bytes(tower, size) for tower in towers),
    )


def _tower_bytes(tower: Tower, size: int) -> int:
    """Activations of a tower: of one layer at a time where no gradient flows, else of all (or the inputs of all and one whole layer)."""
    config = tower.config
    layers = _get(config, 'num_hidden_layers', 'depth', 'num_layers', 'encoder_layers', 'n_layers', default=1)
    hidden = _get(config, 'embed_dim', 'd_model', 'hidden_size', 'width', default=0)
    mlp = _get(config, 'intermediate_size', 'encoder_ffn_dim', default=0) or int(hidden * (_get(config, 'mlp_ratio', default=4) or 4))
    layer = 13 * hidden + 2 * mlp  # two norms, queries, keys and values, the output of attention, a plain MLP
    if not tower.learns:
        elements = layer
    else:
        elements = layers * hidden + layer if tower.checkpointing else layers * layer
    return int(tower.positions * elements * size)


def _layer_elements(config: Any, full: bool) -> int:
    """Elements that one decoder layer saves for backward, per token.

    Counted on a pre-norm gated-MLP layer: two norms (input and normalised input), query/key/value before and after the rotary
    embedding, the attention output, and the MLP's gate, activation, up and product. Adapters save the same inputs again
    only through dropout masks, which are small beside the rest; a frozen linear layer saves no input of its own.
    """
    hidden = _get(config, 'hidden_size', 'n_embd', 'd_model', default=0)
    heads = _get(config, 'num_attention_heads', 'n_head', default=1)
    head_dim = _get(config, 'head_dim', default=0) or hidden // heads
    kv_heads = _get(config, 'num_key_value_heads', default=heads) or heads
    mlp = _get(config, 'intermediate_size', 'n_inner', 'ffn_dim', default=0) or 4 * hidden
    experts = _get(config, 'num_experts_per_tok', default=1) or 1
    attention = 3 * heads * head_dim + 4 * kv_heads * head_dim
    return int(6 * hidden + attention + 4 * mlp * experts + (2 * hidden if full else 0))


def part_of(config: Any, name: str) -> Any:
    """A part of a configuration (`vision_config`, …); None: it has none of that name."""
    return _get(_get(config, 'thinker_config', default=config), name, default=None)


def value_of(config: Any, name: str) -> Any:
    """A value of a configuration; None: it does not say."""
    return _get(config, name, default=None)


def _get(config: Any, *names: str, default: Any) -> Any:
    for name in names:
        value = config.get(name) if isinstance(config, dict) else getattr(config, name, None)
        if value is not None:
            return value
    return default
