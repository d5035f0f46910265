"""Inference with a model that answers with numbers: what training did to a row, put into a ScoringEngine.

A text is encoded by the training method's own code and runs through the training's own forward, so its score here is its score
there. Labels are not needed, and all texts of a row are used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

from swift.arguments import TaskArgs
from swift.core.errors import RowError
from swift.core.types import Conversation, Sample
from swift.pipelines.segments import text_samples

SCORING = ('seq_cls', 'token_cls', 'embedding', 'reranker', 'generative_reranker')
"""Values of --task_type whose models give numbers; the others generate."""


def task_of(args: Any) -> str:
    """The task of the model that `args` names: what was said or saved with it, else what its own files say."""
    if args.task_type != 'causal_lm' or 'task_type' in args.sources:
        return args.task_type
    from swift.model.load import model_info
    from swift.model.sentence_transformers import stored_pooling

    info = model_info(args)
    for suffix, task in (('ForSequenceClassification', 'seq_cls'), ('ForTokenClassification', 'token_cls')):
        if any(name.endswith(suffix) for name in info.architectures):
            return task
    return 'embedding' if stored_pooling(info.model_dir) else 'causal_lm'


class Scorer:
    """A loaded model with its training method. `engine` answers; `figures` compares its answers with labels."""

    def __init__(self, args: Any):
        """`args`: InferArguments whose task_type is one of SCORING."""
        from swift.model.load import load_model
        from swift.pipelines.templates import template_for
        from swift.tuners import load_adapter

        loaded = load_model(args)
        adapters = list(loaded.info.adapters)
        model = load_adapter(loaded.model, adapters) if adapters else loaded.model
        template = template_for(loaded.processor, replace(args, max_length=args.max_length or loaded.info.max_model_len), loaded.info)
        self._build(args, model.eval(), template, loaded.info)

    def _build(self, args: Any, model: Any, template: Any, info: Any) -> None:
        import os

        from swift.infer_engine.scoring import ScoringEngine

        self.args = method_args(args, model, info)
        self.reward = is_reward(self.args)
        self.task = 'rm' if self.reward else args.task_type
        self.tokenizer = template.tokenizer
        self.objective = _objective(self.task, self.args)
        self.engine = ScoringEngine(
            encoder_for(self.task, self.objective, template),
            Forward(self.task, self.objective, model, template.tokenizer),
            reading(self.task, self.objective),
            load=template.read_media,
            name=os.path.basename(os.path.normpath(adapters[-1] if (adapters := list(info.adapters)) else info.model_dir)),
            max_batch_size=args.max_batch_size,
        )

    def figures(self, talks: Sequence[Conversation], results: Sequence[dict[str, Any]]) -> dict[str, float]:
        """How good the answers are, by the labels of the rows; {} when no row has one."""
        from swift.pipelines.scoring_figures import figures

        return figures(self.task, self.objective, talks, results)


def method_args(args: Any, model: Any, info: Any) -> SimpleNamespace:
    """The training method's arguments, as far as they matter afterwards: the head's classes, how vectors and scores are read."""
    from swift.core.heads import TASK_HEADS
    from swift.model.heads import named_labels
    from swift.model.sentence_transformers import default_pooling

    values = {f.name: getattr(TaskArgs(), f.name) for f in fields(TaskArgs)} | {'loss_type': None, 'loss_kwargs': {}}
    own = {name: getattr(args, name) for name in ('num_labels', 'class_names', 'problem_type', 'positive_token', 'negative_token')}
    if args.task_type in ('seq_cls', 'token_cls'):
        config = getattr(model, 'config', None)
        own['num_labels'] = own['num_labels'] or getattr(config, 'num_labels', None)
        own['class_names'] = list(own['class_names'] or named_labels(info, TASK_HEADS[args.task_type]) or [])
        own['problem_type'] = own['problem_type'] or getattr(config, 'problem_type', None)
    pooling = args.pooling or (default_pooling(info) if args.task_type == 'embedding' else None)
    return SimpleNamespace(**{**values, **own, 'task_type': args.task_type, 'pooling': pooling})


def is_reward(args: Any) -> bool:
    """A classifier with one output that nobody called a regression is a reward model: it judges whole conversations."""
    return args.task_type == 'seq_cls' and args.num_labels == 1 and args.problem_type is None


def _objective(task: str, args: SimpleNamespace) -> Any:
    from swift.objectives import get_objective

    if task == 'rm':
        return get_objective('rm', SimpleNamespace(**{**vars(args), 'center_rewards_coefficient': None}))
    return get_objective(task, args)


def reading(task: str, objective: Any) -> Any:
    """What the outputs of a task mean."""
    from swift.infer_engine.scoring import Classes, Ranking, Reward, Vectors, Words

    if task == 'seq_cls':
        return Classes(objective.classes.names, objective.problem)
    if task == 'token_cls':
        return Words(objective.classes.names)
    return {'rm': Reward, 'embedding': Vectors}.get(task, Ranking)()


# ---- rows → samples

Encoder = Callable[[Sequence[Conversation]], list[Any]]


def encoder_for(task: str, objective: Any, template: Any) -> Encoder:
    """`conversations → samples`, each as the training method encodes its texts."""
    return {
        'seq_cls': lambda talks: objective.read_batch(talks, template),
        'token_cls': lambda talks: objective.read_batch(talks, template),
        'rm': lambda talks: judged(talks, template),
        'embedding': lambda talks: embedded(talks, objective, template),
    }.get(task, lambda talks: ranked(talks, objective, template))


def judged(talks: Sequence[Conversation], template: Any) -> list[Sample | RowError]:
    """For a reward model: the conversation, then with each rejected answer."""
    from swift.objectives.group import in_groups
    from swift.objectives.preference import answered, joined

    groups = [[answered(talk, said) for said in (talk.messages, *([talk.rejected, *(talk.negatives or [])] if talk.rejected else []))] for talk in talks]
    return [
        found.at(talk.source) if isinstance(found, RowError) else joined([item[0] for item in found], talk)
        for talk, found in zip(talks, in_groups(groups, template.encode_batch), strict=True)
    ]


def embedded(talks: Sequence[Conversation], objective: Any, template: Any) -> list[Sample | RowError]:
    """For an embedding model: the text, then those of the row that it is compared with."""
    from swift.objectives.embedding import grouped
    from swift.objectives.group import in_groups
    from swift.objectives.texts import encode_texts

    groups = [[talk.messages, *(talk.positives or []), *(talk.negatives or [])] for talk in talks]
    encoded = in_groups(groups, partial(encode_texts, template=template, end=objective.args.pooling == 'last'))
    return [
        found.at(talk.source) if isinstance(found, RowError) else grouped(found, replace(talk, label=None), {'positives': len(talk.positives or [])})
        for talk, found in zip(talks, encoded, strict=True)
    ]


def ranked(talks: Sequence[Conversation], objective: Any, template: Any) -> list[Sample | RowError]:
    """For a reranker: every document of the row with its query."""
    from swift.objectives.embedding import grouped
    from swift.objectives.preference import missing
    from swift.objectives.texts import parts_of

    reader = objective.reader(template)
    results: list[Sample | RowError] = []
    for talk in talks:
        documents = [*(talk.positives or []), *(talk.negatives or [])]
        try:
            if not documents:
                raise missing(talk, 'document to judge', 'document, positive or negative (lists of texts)')
            parts, facts = reader(talk.messages, [parts_of(document) for document in documents])
            results.append(grouped(parts, replace(talk, label=None), {'positives': len(talk.positives or []), 'query': 0, **facts}))
        except RowError as error:
            results.append(error.at(talk.source))
    return results


# ---- samples → numbers


class Forward:
    """`samples → outputs of each` by the training's own collate and forward, flat where the model is the same flat.

    How the model is run is found out on texts, and anew on the first samples that show something.
    """

    def __init__(self, task: str, objective: Any, model: Any, tokenizer: Any):
        self._task, self._objective, self._model = task, objective, model
        self._device = next(model.parameters()).device
        self._seen_media, self._padded = False, False
        self._plan(text_samples(tokenizer))

    def _plan(self, samples: Sequence[Sample]) -> None:
        from swift.core.types import Actors
        from swift.trainers import selfcheck
        from swift.trainers.forward import ModelActor

        plan = selfcheck.plan(self._model, samples, flat=not self._padded)
        self._padded, self._actors = not plan.flat, Actors(ModelActor(self._model, plan))

    def __call__(self, samples: Sequence[Sample]) -> list[np.ndarray]:
        import torch

        if not self._seen_media and (shown := [sample for sample in samples if any(sample.media or ())]):
            self._seen_media = True
            self._plan(shown)
        batch = self._objective.collate(samples, padded=self._padded).to(self._device)
        with torch.inference_mode():
            outputs = self._outputs(batch)
        if self._task == 'token_cls':
            sizes = self._objective.word_counts(samples)
        else:
            sizes = [len(sample.segment_lengths) for sample in samples]
        return [part.float().cpu().numpy() for part in outputs.split(sizes)]

    def _outputs(self, batch: Any) -> Any:
        """[segments, values], of token_cls [words, classes]."""
        if self._task == 'embedding':
            return self._objective.embed(batch, self._actors)
        if self._task in ('seq_cls', 'rm'):
            return self._actors.policy.scores(batch)
        scores = self._objective.scores(batch, self._actors)
        return scores if scores.dim() == 2 else scores[:, None]
