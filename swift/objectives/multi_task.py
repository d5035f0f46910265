"""Several tasks in one training: every row belongs to a task, and `--routing_strategy` says how much its tokens count.

With l the loss of a labelled token of task k (as in sft), w_k the task's weight (--task_weights), N the labelled tokens of the
optimizer step, the loss is the sum over all labelled tokens, divided by N, of

    w_k · l                              fixed
    w_k · (exp(-s_k) · l + s_k)          uncertainty: s_k, learned, is the task's log-variance (Kendall et al. 2018, arXiv:1705.07115)
    Σ_k p_k · w_k · l - log p_task       learned: p_k, the probability that the row is of task k, by a router that learns to tell

uncertainty: s_k falls to log of the task's mean loss, where the task counts 1 / that loss: a task that can't be learned well
counts less. The loss may then be negative. learned: the router reads the hidden state in which the model begins its answer
(scaled to length 1, no gradient goes back) and learns from rows that name their task; the weights are constants to the model
and to the router. A row that names no task is weighed as the tasks it looks like. With all weights 1, fixed is sft.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from swift.core.errors import RowError, SwiftError, did_you_mean
from swift.core.types import Actors, AnswerTokens, Batch, Conversation, Loss, Sample, Template
from swift.objectives.preference import missing
from swift.objectives.sft import SFT, whole_answers

UNKNOWN = -1
"""The number of a row that names no task."""
RATES = {'uncertainty': 1e-2, 'learned': 5e-2}
"""Learning rates of a strategy's own parameters: some hundred steps move a log-variance by 1, or teach the router its tasks."""


class TaskRouter(nn.Module):
    """Tells tasks apart by a hidden state: scores of `num_tasks` tasks by one linear map."""

    def __init__(self, hidden_size: int, num_tasks: int):
        super().__init__()
        self.gate = nn.Linear(hidden_size, num_tasks)
        nn.init.zeros_(self.gate.weight)  # at first every task is as likely
        nn.init.zeros_(self.gate.bias)

    def scores(self, hidden_states: Tensor) -> Tensor:
        """[B, K] logits of states [B, H], or of [B, L, H]: then the first of each row is read."""
        states = hidden_states[:, 0] if hidden_states.dim() == 3 else hidden_states
        return self.gate(states.to(self.gate.weight.dtype))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """[B, K] probabilities of the tasks."""
        return torch.softmax(self.scores(hidden_states), dim=-1)


class MultiTaskLoss(nn.Module):
    """Losses weighed by learned uncertainty: Σ_k exp(-s_k) · L_k + s_k (arXiv:1705.07115, with s = log σ²)."""

    def __init__(self, num_tasks: int):
        super().__init__()
        self.log_vars = nn.Parameter(torch.zeros(num_tasks))

    def forward(self, losses: Sequence[Tensor] | Tensor) -> Tensor:
        """The sum over the tasks of one loss each."""
        values = torch.stack(list(losses)) if not isinstance(losses, Tensor) else losses
        return self.each(values, torch.arange(len(values), device=values.device)).sum()

    def each(self, losses: Tensor, task: Tensor) -> Tensor:
        """[N] exp(-s) · loss + s of losses [N], each of the task numbered in `task` [N]."""
        s = self.log_vars.to(losses.device)[task]
        return torch.exp(-s) * losses + s

    def weights(self) -> Tensor:
        """[K] what a loss of each task is multiplied with."""
        return torch.exp(-self.log_vars.detach())


class MultiTask(SFT):
    """`args`: tasks, task_weights, routing_strategy (TaskArgs), and what sft reads. `hidden_size`: of the model, for the router."""

    def __init__(self, args: Any, hidden_size: int | None = None):
        super().__init__(args)
        self.names = tuple(args.tasks)
        self.numbers = {name: number for number, name in enumerate(self.names)}
        self.weights = task_weights(args.task_weights, self.names)
        self.routing = args.routing_strategy
        self.module_learning_rate = RATES.get(self.routing)
        if self.routing == 'uncertainty':
            self.module = MultiTaskLoss(len(self.names))
        elif self.routing == 'learned':
            if not hidden_size:
                raise SwiftError('--routing_strategy learned: the size of the hidden states is unknown;', 'use fixed or uncertainty')
            self.module = TaskRouter(hidden_size, len(self.names))

    @property
    def fingerprint(self) -> str:
        return f'{self.names}|{self.routing == "learned"}'

    def encode_batch(self, conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
        """As in sft; a row that names no task, or one that is none of the tasks, becomes its RowError."""
        named = [_named(talk) for talk in conversations]
        errors = [self._mistake(talk) for talk in named]
        good = iter(template.encode_batch([talk for talk, error in zip(named, errors, strict=True) if error is None]))
        return [next(good) if error is None else error for error in errors]

    def _mistake(self, talk: Conversation) -> RowError | None:
        if talk.channel in self.numbers or (talk.channel is None and self.routing == 'learned'):
            return None
        known = ', '.join(self.names)
        if talk.channel is None:
            return missing(talk, 'task', f'channel or task (known: {known})')
        return RowError(f'unknown task {talk.channel!r};', talk.source, did_you_mean(talk.channel, self.names) or f'known: {known}')

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """The micro-batch, with the number of every segment's task."""
        batch = super().collate(samples, padded)
        channels = batch.channels or [None] * len(batch.lengths)
        batch.extra['task'] = torch.tensor([UNKNOWN if name is None else self.numbers[name] for name in channels])
        return batch

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        """Metrics: `loss_<task>` (mean loss of its tokens, unweighted), `token_acc_<task>`, `weight_<task>` (what they count)."""
        routed = self.routing == 'learned'
        tokens = actors.policy.answer_logps(batch, want=(*self._want(), *(('hidden',) if routed else ())))
        each, task = self._each(tokens), batch.extra['task'].to(tokens.segment.device)
        weights = torch.tensor(self.weights, dtype=torch.float32, device=each.device)
        metrics: dict[str, Tensor] = {}
        if routed:
            total, counts, metrics = self._routed(each, task, weights, tokens)
        elif self.routing == 'uncertainty':
            of_token = task[tokens.segment]
            total = weights[of_token] * self.module.each(each, of_token)
            counts = (weights * self.module.weights().to(weights.device))[of_token]
        else:
            counts = weights[task[tokens.segment]]
            total = counts * each
        if batch.weights is not None:
            total = total * batch.weights.reshape(-1)[tokens.index]
        return Loss(total.sum(), {**metrics, **self._metrics(each.detach(), counts, tokens, batch)})

    def _routed(
        self, each: Tensor, task: Tensor, weights: Tensor, tokens: AnswerTokens
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """(loss [N] of every token, the router's own included; what its own loss counts [N]; metrics of the router)."""
        begins = torch.ones_like(tokens.segment, dtype=torch.bool)
        begins[1:] = tokens.segment[1:] != tokens.segment[:-1]
        row = begins.long().cumsum(0) - 1
        scores = self.module.scores(normalize(tokens.hidden[begins].detach().float(), dim=-1)).float()
        target = task[tokens.segment[begins]]
        known = target != UNKNOWN
        learns = cross_entropy(scores, target.clamp(min=0), reduction='none') * known
        counts = (torch.softmax(scores.detach(), -1) @ weights)[row]
        right = (scores.detach().argmax(-1) == target)[known]
        return counts * each + learns[row], counts, {'router_acc': right, 'router_loss': learns[known]}

    def _metrics(self, each: Tensor, counts: Tensor, tokens: AnswerTokens, batch: Batch) -> dict[str, Tensor]:
        by_sequence = self.args.acc_strategy == 'seq'
        metrics = {'seq_acc': whole_answers(tokens, len(batch.lengths))} if by_sequence else {'token_acc': tokens.correct}
        channels = batch.channels or []
        for name in self.names:
            if name not in channels:
                continue
            mine = torch.tensor([channel == name for channel in channels], device=each.device)[tokens.segment]
            metrics |= {f'loss_{name}': each[mine], f'token_acc_{name}': tokens.correct[mine], f'weight_{name}': counts[mine]}
        return metrics


def task_weights(given: Sequence[float] | None, names: Sequence[str]) -> list[float]:
    """One weight a task. Raises SwiftError when their number differs or there is no task."""
    if not names:
        raise SwiftError(
            '--task_type multi_task: no row names a task;',
            'give rows a column task, task_templates in dataset_info.json, or (streaming) the names in --tasks',
        )
    weights = [1.0] * len(names) if given is None else [float(weight) for weight in given]
    if len(weights) != len(names):
        raise SwiftError(f'--task_weights has {len(weights)} values for {len(names)} tasks ({", ".join(names)});', 'give one for each, in this order')
    if not any(weights):
        raise SwiftError('--task_weights are all 0: nothing would be learned;', 'give at least one above 0')
    return weights


def _named(talk: Conversation) -> Conversation:
    """The conversation with its task as channel."""
    task = talk.columns.get('task')
    return replace(talk, channel=str(task)) if talk.channel is None and task is not None else talk
