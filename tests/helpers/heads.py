"""A tiny random model of any architecture as a classifier, and its way through LoRA.

`trip` is the whole way: base on disk → load with a head → flat = padded = alone → LoRA → two steps → save → load on a fresh base →
merge → save → load, here and in plain transformers and PEFT.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from tests.helpers.architectures import FACTS, VOCAB, _same, _wake, build, tiny_config

ENCODERS = (
    'bert roberta xlm-roberta distilbert deberta-v2 modernbert electra albert camembert mpnet ernie megatron-bert nystromformer roformer '
    'xlm-roberta-xl roberta-prelayernorm convbert deberta rembert mobilebert esm eurobert longformer flaubert xlm xlnet data2vec-text '
    'big_bird fnet yoso xmod'
).split()
"""Encoders whose classifiers transformers has."""

_FACTS = {
    'mobilebert': dict(embedding_size=16, true_hidden_size=32, intra_bottleneck_size=32, num_feedforward_networks=1),
    'deberta-v2': dict(relative_attention=True, position_buckets=8, pos_att_type=['p2c', 'c2p']),
    'longformer': dict(attention_window=[16, 16]),
    'big_bird': dict(attention_type='original_full'),
    'modernbert': dict(local_attention=16),
    'esm': dict(vocab_size=640, pad_token_id=0, mask_token_id=1, position_embedding_type='rotary'),
}


def build_encoder(model_type: str, directory: str) -> None:
    """Write a random tiny encoder, with the head it is pre-trained with where there is one, and the tests' tokenizer."""
    import torch
    from transformers import AutoModel, AutoModelForMaskedLM
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

    from tests.helpers.tiny import build_tokenizer

    torch.manual_seed(0)
    config = tiny_config(model_type)
    for name, value in _FACTS.get(model_type, {}).items():
        setattr(config, name, value)
    auto = AutoModelForMaskedLM if type(config) in MODEL_FOR_MASKED_LM_MAPPING else AutoModel
    model = auto.from_config(config, dtype=torch.float32).eval()
    _wake(model)
    model.save_pretrained(directory)
    tokenizer = build_tokenizer()
    if config.pad_token_id:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(config.pad_token_id)
    tokenizer.save_pretrained(directory)


def samples_of(length: int) -> list[Any]:
    """Two texts of different length."""
    import torch

    from swift.core.types import IGNORE_INDEX, Sample

    ids = torch.randint(10, 400, (2, length), generator=torch.Generator().manual_seed(1)).tolist()
    return [Sample(row, [IGNORE_INDEX] * len(row)) for row in (ids[0], ids[1][: length * 3 // 4])]


class Trip:
    """One architecture with the head of `task` (seq_cls, token_cls, embedding)."""

    def __init__(self, model_type: str, directory: str, task: str, encoder: bool = False):
        from swift.arguments.model import ModelArgs

        shutil.rmtree(directory, ignore_errors=True)
        self.base, self.adapter, self.merged = (os.path.join(directory, name) for name in ('base', 'adapter', 'merged'))
        (build_encoder if encoder else build)(model_type, self.base)
        self.task = task
        self.labels = {} if task == 'embedding' else {'num_labels': 3}
        self.args = lambda **more: ModelArgs(**{**dict(model=self.base, task_type=task, **self.labels), **more})
        self.samples = samples_of(FACTS.get(model_type, {}).get('length', 20))

    def outputs(self, model: Any, plan: Any, padded: bool = False, samples: Any = None) -> Any:
        """[2, 3] scores, [tokens, 3] scores of tokens, or [tokens, H] hidden states of both samples."""
        import torch

        from swift.objectives import collate
        from swift.trainers.forward import ModelActor

        torch.manual_seed(7)  # reformer hashes with random rotations
        batch = (collate.padded if padded else collate.flat)(samples or self.samples)
        actor = ModelActor(model, plan)
        if self.task == 'seq_cls':
            return actor.scores(batch)
        real = torch.ones_like(batch.input_ids) if batch.attention_mask is None else batch.attention_mask
        index = real.reshape(-1).nonzero()[:, 0]
        if self.task == 'token_cls':
            return actor.logits(batch, index)
        hidden = actor.hidden(batch)
        return hidden.reshape(-1, hidden.shape[-1])[index]

    def alone(self, model: Any) -> Any:
        """The same from each sample alone, by nothing but the model's own forward on its ids."""
        import torch

        parts = []
        for sample in self.samples:
            torch.manual_seed(7)
            output = model(input_ids=torch.tensor([sample.input_ids]))
            parts.append(output.logits if hasattr(output, 'logits') else output.last_hidden_state[0])
        return torch.cat([part if part.dim() == 2 else part[0] for part in parts])

    def run(self) -> dict[str, Any]:
        import torch

        from swift.arguments.tuner import TunerArgs
        from swift.model import load_model
        from swift.trainers import selfcheck
        from swift.tuners import coverage, load_adapter, merge, prepare_tuner, save_tuner

        loaded = load_model(self.args(), for_training=True)
        model = loaded.model.eval()
        with torch.no_grad():
            wanted = self.alone(model)
            plan = selfcheck.plan(model, self.samples)
            if plan.flat:
                _same('flat', wanted, self.outputs(model, plan), 1e-4)
            _same('padded', wanted, self.outputs(model, plan, padded=True), 1e-4)
        torch.manual_seed(0)
        tuned = prepare_tuner(model, TunerArgs(lora_dropout=0.0), info=loaded.info)
        facts = self._learn(tuned, plan)
        with torch.no_grad():
            trained = self.outputs(tuned.eval(), plan, padded=not plan.flat)
            save_tuner(tuned, self.adapter)
            fresh = load_model(self.args(adapters=[self.adapter]))
            again = load_adapter(fresh.model, fresh.info.adapters).eval()
            selfcheck.plan(again, self.samples)
            _same('reloaded adapter', trained, self.outputs(again, plan, padded=not plan.flat))
            self._plain_peft(trained)
            merged, report = merge(again)
            save_tuner(merged, self.merged, processor=fresh.processor)
            written = load_model(self.args(model=self.merged)).model.eval()
            _same('merged after saving and loading', trained, self.alone(written), 1e-3)
            self._plain_transformers(trained)
        return {**facts, 'class': type(model).__name__, 'flat': plan.flat, 'selects': plan.selects, 'alone': plan.alone,
                'reason': plan.reason, 'share': coverage(tuned).share, 'max_diff': report.max_diff}  # fmt: skip

    def _learn(self, tuned: Any, plan: Any) -> dict[str, Any]:
        """Two steps; which parameters got no gradient."""
        import torch

        optimizer = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr=0.05)
        tuned.train()
        for _ in range(2):
            self.outputs(tuned, plan, padded=not plan.flat).square().mean().backward()
            named = [(name, p) for name, p in tuned.named_parameters() if p.requires_grad]
            silent = [name for name, p in named if '.lora_A.' not in name and (p.grad is None or not p.grad.any())]
            optimizer.step()
            optimizer.zero_grad()
        heads = sorted({name.split('.modules_to_save')[0].removeprefix('base_model.model.') for name, _ in named if 'modules_to_save' in name})
        return {'silent': silent, 'heads': heads}

    def _auto(self) -> Any:
        import transformers
        from transformers.models.auto import modeling_auto

        auto, mapping = {
            'seq_cls': ('AutoModelForSequenceClassification', modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING),
            'token_cls': ('AutoModelForTokenClassification', modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING),
            'embedding': ('AutoModel', modeling_auto.MODEL_MAPPING),
        }[self.task]
        config = transformers.AutoConfig.from_pretrained(self.base)
        return getattr(transformers, auto) if type(config) in mapping else None

    def _plain_transformers(self, trained: Any) -> None:
        auto = self._auto()
        if auto is not None:
            _same('merged in plain transformers', trained, self.alone(auto.from_pretrained(self.merged).eval()), 1e-3)

    def _plain_peft(self, trained: Any) -> None:
        from peft import PeftModel

        auto = self._auto()
        if auto is not None:
            base = auto.from_pretrained(self.base, **self.labels).eval()
            _same('adapter in plain PEFT', trained, self.alone(PeftModel.from_pretrained(base, self.adapter).eval()), 1e-3)


assert VOCAB >= 600
