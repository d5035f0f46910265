"""Real (unpadded) tokens per second of SFT: our Trainer against two loops, same model, same data, same process, in turn.

    python benchmarks/train_throughput.py [--steps 40] [--rounds 3] [--threads 1]

bare     a plain PyTorch loop: flat segments, scaled_dot_product_attention per segment, logits at labels only, AdamW
padded   a plain transformers loop: padded batches with an attention mask, `model(labels=…)`, AdamW
swift    swift.trainers with everything a run has: self-check, logging, metrics, gradient clipping, scheduler

The model is a random Qwen3 of 4 M parameters and vocabulary 4,096 with LoRA r = 8 on all linear layers, float32; samples have
175 tokens on average (log-normal, at most 512), a third of them prompt; micro-batches of 4. `--memory NAME` runs one of the
three alone and prints the peak resident memory of the process. Ratios are medians over the rounds; `cpu` ratios compare
processor seconds, which is what counts on a machine that does other things at the same time.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import sys
import tempfile
import time
from types import SimpleNamespace

import torch
import torch.nn.functional as F

BATCH, VOCABULARY, LONGEST = 4, 4096, 512


def build_model(seed: int = 0):
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=VOCABULARY, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=8,
        num_key_value_heads=4, head_dim=32, tie_word_embeddings=True, max_position_embeddings=2048, pad_token_id=0,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    lora = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.05, target_modules='all-linear', task_type='CAUSAL_LM')
    return get_peft_model(model, lora)


def build_samples(count: int, seed: int = 1):
    from swift.core.types import IGNORE_INDEX, Sample

    generator = torch.Generator().manual_seed(seed)
    sizes = torch.empty(count).log_normal_(5.0, 0.6, generator=generator).clamp(16, LONGEST).long()
    sizes = (sizes.float() * (175 / sizes.float().mean())).clamp(16, LONGEST).long()
    samples = []
    for number, size in enumerate(sizes.tolist()):
        ids = torch.randint(3, VOCABULARY, (size,), generator=generator).tolist()
        prompt = size // 3
        samples.append(Sample(ids, [IGNORE_INDEX] * prompt + ids[prompt:], source=f'random:{number}'))
    return samples


class Batches:
    """The least a BatchLoader can be: micro-batches of `BATCH` samples in order."""

    def __init__(self, samples, collate):
        self.samples, self.collate, self.epoch = samples, collate, 0

    def __len__(self):
        return len(self.samples) // BATCH

    def __iter__(self):
        for start in range(0, len(self) * BATCH, BATCH):
            yield self.collate(self.samples[start : start + BATCH])

    def set_epoch(self, epoch):
        self.epoch = epoch


class Watch:
    """Wall and processor seconds since it was made."""

    def __init__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def optimizer_of(model):
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True)


def run_bare(samples) -> tuple[float, float]:
    """Written out here, so that nothing of the package is in it: only torch, and the model's own modules."""
    from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

    model = build_model()
    model.train()
    base = model.get_base_model()
    optimizer = optimizer_of(model)
    batches = [samples[i : i + BATCH] for i in range(0, len(samples) // BATCH * BATCH, BATCH)]
    watch = Watch()
    for batch in batches:
        lengths = [len(s.input_ids) for s in batch]
        ids = torch.tensor([t for s in batch for t in s.input_ids])
        labels = torch.tensor([t for s in batch for t in (-100, *s.labels[1:])])
        positions = torch.cat([torch.arange(n) for n in lengths])
        x = base.model.embed_tokens(ids)[None]
        cos, sin = base.model.rotary_emb(x, positions[None])
        for layer in base.model.layers:
            attention = layer.self_attn
            h = layer.input_layernorm(x)
            shape = (1, len(ids), -1, attention.head_dim)
            q = attention.q_norm(attention.q_proj(h).view(shape)).transpose(1, 2)
            k = attention.k_norm(attention.k_proj(h).view(shape)).transpose(1, 2)
            v = attention.v_proj(h).view(shape).transpose(1, 2)
            q, k = apply_rotary_pos_emb(q, k, cos, sin)
            parts = [
                F.scaled_dot_product_attention(a, b, c, is_causal=True, enable_gqa=True)
                for a, b, c in zip(q.split(lengths, 2), k.split(lengths, 2), v.split(lengths, 2), strict=True)
            ]
            x = x + attention.o_proj(torch.cat(parts, 2).transpose(1, 2).reshape(1, len(ids), -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        x = base.model.norm(x)[0]
        kept = (labels != -100).nonzero()[:, 0]
        loss = F.cross_entropy(base.lm_head(x[kept - 1]), labels[kept])
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return watch.read()


def run_padded(samples) -> tuple[float, float]:
    model = build_model()
    model.train()
    optimizer = optimizer_of(model)
    batches = [samples[i : i + BATCH] for i in range(0, len(samples) // BATCH * BATCH, BATCH)]
    watch = Watch()
    for batch in batches:
        longest = max(len(s.input_ids) for s in batch)
        ids = torch.tensor([[*s.input_ids] + [0] * (longest - len(s.input_ids)) for s in batch])
        labels = torch.tensor([[*s.labels] + [-100] * (longest - len(s.input_ids)) for s in batch])
        mask = torch.tensor([[1] * len(s.input_ids) + [0] * (longest - len(s.input_ids)) for s in batch])
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return watch.read()


def run_swift(samples) -> tuple[float, float]:
    from swift.arguments.train import TrainArgs
    from swift.objectives import get_objective
    from swift.trainers.factory import build_trainer
    from swift.trainers.selfcheck import plan

    model = build_model()
    args = TrainArgs(
        num_train_epochs=1, per_device_train_batch_size=BATCH, learning_rate=1e-4, save_strategy='no', report_to=[]
    )
    objective = get_objective('sft', args)
    chosen = plan(model, samples)
    if not chosen.flat:
        sys.exit(f'the model does not run flat: {chosen.reason}')
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(model, args, objective, Batches(samples, objective.collate), run_dir=folder, plan=chosen)
        watch = Watch()
        trainer.train()
        return watch.read()


RUNS = {'bare': run_bare, 'padded': run_padded, 'swift': run_swift}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--steps', type=int, default=40)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--memory', choices=list(RUNS))
    options = SimpleNamespace(**vars(parser.parse_args()))
    torch.set_num_threads(options.threads)
    samples = build_samples(options.steps * BATCH)
    tokens = sum(len(s.input_ids) for s in samples)
    if options.memory:
        seconds, _ = RUNS[options.memory](samples)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({'run': options.memory, 'tokens_per_second': round(tokens / seconds), 'peak_MiB': round(peak)}))
        return
    for run in RUNS.values():
        run(samples[: 4 * BATCH])
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in RUNS}
    for _ in range(options.rounds):
        for name, run in RUNS.items():
            times[name].append(run(samples))
            print(f'{name:7} {tokens / times[name][-1][0]:8.0f} tokens/s', flush=True)
    result: dict = {name: round(tokens / statistics.median(wall for wall, _ in rows)) for name, rows in times.items()}
    for other in ('bare', 'padded'):
        for kind, place in (('', 0), (' cpu', 1)):
            ratios = [theirs[place] / ours[place] for theirs, ours in zip(times[other], times['swift'], strict=True)]
            result[f'swift/{other}{kind}'] = round(statistics.median(ratios), 3)
    result |= {'threads': options.threads, 'steps': options.steps, 'mean_tokens': round(tokens / len(samples), 1)}
    print(json.dumps(result))


if __name__ == '__main__':
    from swift.core.startup import loaded

    with loaded('torch', 'transformers.trainer', 'peft'):  # as `swift sft` does
        main()
