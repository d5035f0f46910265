"""How a run's optimizer is made.

    class Mine(OptimizerCallback):
        def create_optimizer(self):
            return torch.optim.SGD(self.trainable(), lr=self.args.learning_rate)

    optimizers_map['mine'] = Mine            # --optimizer mine
"""

from __future__ import annotations

from typing import Any

from swift.core.errors import SwiftError
from swift.core.registry import Registry
from swift.trainers.optimizers.parts import PartRates

LATER = {
    'galore': 'GaLore', 'q_galore': 'Q-GaLore', 'muonclip': 'MuonClip',
}
"""Names other programs have that are not available (yet), with what they are."""


class OptimizerCallback:
    """Makes the optimizer (and, if it wants, the scheduler) of a trainer. Override `create_optimizer`.

    `args` are the training arguments (transformers' TrainingArguments), `trainer` the Trainer: `trainer.model` is the model.
    """

    def __init__(self, args: Any, trainer: Any):
        self.args = args
        self.trainer = trainer

    def create_optimizer(self) -> Any:
        """A torch.optim.Optimizer over the trainable parameters; here transformers' choice by --optim."""
        cls, kwargs = self.trainer.get_optimizer_cls_and_kwargs(self.args, self.trainer.model)
        return cls(self.groups(), **kwargs)

    def create_scheduler(self, num_training_steps: int, optimizer: Any) -> Any | None:
        """A learning rate scheduler; None: --lr_scheduler_type decides."""
        return None

    def trainable(self) -> list[Any]:
        """The parameters that learn."""
        return [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]

    def groups(self) -> list[dict[str, Any]]:
        """With --weight_decay, and (norms, biases) without; both for each part that has a learning rate of its own."""
        model = self.trainer.model
        decayed = set(self.trainer.get_decay_parameter_names(model))
        rates = PartRates(self.args, model)
        found: dict[tuple[str, bool], list[Any]] = {('', True): [], ('', False): []}
        for name, value in model.named_parameters():
            if value.requires_grad:
                found.setdefault((rates.label(name), name not in decayed), []).append(value)
        kept = {key: values for key, values in found.items() if values or not rates.separate}
        return [
            {'params': values, 'weight_decay': 0.0 if plain else self.args.weight_decay, **rates.group(label)}
            for (label, plain), values in sorted(kept.items(), key=lambda item: (rates.order(item[0][0]), item[0][1]))
        ]


optimizers_map: Registry = Registry('optimizer', {
    'default': OptimizerCallback,
    'multimodal': OptimizerCallback,
    'lorap': 'swift.trainers.optimizers.lora_plus:LoraPlus',
    'muon': 'swift.trainers.optimizers.muon:Muon',
})
"""Name → subclass of OptimizerCallback (or any callable `(args, trainer)` with the same two methods)."""


def create_optimizer(name: str, args: Any, trainer: Any) -> OptimizerCallback:
    """The registered optimizer maker of that name, bound to a trainer; SwiftError for an unknown name."""
    if name in LATER and name not in optimizers_map:
        raise SwiftError(f'--optimizer {name}: {LATER[name]} is not available in this version;',
                         f'available: {", ".join(sorted(optimizers_map))}')
    return optimizers_map[name](args, trainer)


def chosen(args: Any, lorap_lr_ratio: float | None = None) -> str | None:
    """The name of the optimizer maker that the arguments (TrainArgs) ask for. None: transformers' own choice."""
    separate = args.vit_lr is not None or args.aligner_lr is not None
    name = args.optimizer or ('lorap' if lorap_lr_ratio else 'multimodal' if separate else None)
    if lorap_lr_ratio and name == 'multimodal':
        return 'lorap'
    if lorap_lr_ratio and name != 'lorap':
        raise SwiftError(f'--lorap_lr_ratio has no effect with --optimizer {name};', 'drop one of them')
    return name
