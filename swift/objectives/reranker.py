"""Rerankers: how well a document answers a query, as one number z; the probability of it is sigmoid(z).

    pointwise   binary cross entropy of z with the relevance of every document                     (an item is a document)
    listwise    -log e^{z_p/τ} / (e^{z_p/τ} + Σ_n e^{z_n/τ}) of every positive p against the negatives n of its row
                (an item is a positive; localised contrastive estimation: Gao, Dai & Callan, 2021, arXiv:2101.08751, eq. 5)

A classifier with one output reads query and document together (cross-encoder): as the pair that the tokenizer makes of two texts,
or, with a chat template, as a question of the user and an answer of the assistant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from swift.core.errors import RowError, RowTooLong, SwiftError
from swift.core.media import is_medium, media_of
from swift.core.types import Actors, Batch, Conversation, Loss, Message, Sample, Template
from swift.objectives import loss_names
from swift.objectives.base import Objective
from swift.objectives.custom import Outputs, mean_of, own_loss
from swift.objectives.embedding import NEGATIVES, grouped, number
from swift.objectives.group import as_group
from swift.objectives.preference import missing
from swift.objectives.retrieval import group_metrics
from swift.objectives.texts import Part, Text, content_of, ending, fitted, name_of_query, parts_of, plainly, text_of

LOSSES = ('pointwise_reranker', 'listwise_reranker')
POSITIVES = 'positive_messages, positive, response or document'


class Reranker(Objective):
    """`--task_type reranker`. `args`: TaskArgs, `loss_type`, `loss_kwargs`."""

    columns = ('positives',)
    several = True

    def __init__(self, args: Any):
        super().__init__(args)
        self.name = (loss_names(args) or LOSSES)[0]
        self.own = own_loss(self.name, LOSSES, args)

    # ---- rows

    @property
    def fingerprint(self) -> str:
        """Which documents of a row are used."""
        return repr((self.name, self.args.max_positive_samples, self.args.max_negative_samples))

    def encode_batch(self, conversations: Sequence[Conversation], template: Template) -> list[list[Sample] | RowError]:
        """One sample a row, every document with the query a segment: positives first."""
        reader = self.reader(template)
        results: list[list[Sample] | RowError] = []
        for talk in conversations:
            try:
                results.append([self._encode(as_group(talk), reader)])
            except RowError as error:
                results.append(error.at(talk.source))
        return results

    def reader(self, template: Template) -> Reader:
        """What makes segments of queries and documents."""
        return Dialogue(template) if template.use_chat_template else Pair(template)

    def _encode(self, talk: Conversation, reader: Reader) -> Sample:
        positives, negatives = self._documents(talk)
        parts, facts = reader(talk.messages, [parts_of(messages) for messages in (*positives, *negatives)])
        return grouped(parts, talk, {'positives': len(positives), 'query': name_of_query(talk.messages, parts[0]), **facts})

    def _documents(self, talk: Conversation) -> tuple[list[Any], list[Any]]:
        """The positives and the negatives that are used. Raises RowError for a row without what the loss needs."""
        args = self.args
        if not talk.positives:
            raise missing(talk, 'document that answers it', POSITIVES)
        positives = talk.positives[: args.max_positive_samples]
        negatives = (talk.negatives or [])[: args.max_negative_samples]
        if not negatives and self.name == 'listwise_reranker':
            raise missing(talk, 'document that does not answer it', NEGATIVES)
        if not negatives and talk.label is None:
            raise missing(talk, 'document that does not answer it, and no label', f'{NEGATIVES}, or label (1 or 0)')
        value = None if talk.label is None else number(talk.label)
        if talk.label is not None and (value is None or not 0 <= value <= 1):
            raise RowError(f'label must be a number from 0 to 1, got {talk.label!r}', talk.source)
        if self.name == 'listwise_reranker' and value is not None and value < 1:
            raise RowError(f'label is {talk.label}, but listwise_reranker takes every positive as one;', talk.source, 'use pointwise_reranker')
        return positives, negatives

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """Every document a segment; `extra['ranking']` says which query it belongs to and how relevant it is."""
        batch = super().collate(samples, padded)
        sizes = torch.tensor([len(sample.segment_lengths) for sample in samples])
        relevance: list[float] = []
        for sample in samples:
            positives = int(sample.extra['positives'])
            relevance += [1.0 if sample.label is None else float(sample.label)] * positives
            relevance += [0.0] * (len(sample.segment_lengths) - positives)
        batch.extra['ranking'] = {
            'row': torch.repeat_interleave(torch.arange(len(samples)), sizes),
            'query': torch.repeat_interleave(torch.tensor([int(sample.extra['query']) for sample in samples]), sizes),
            'relevance': torch.tensor(relevance),
        }
        if any(sample.extra.get('second') for sample in samples):
            starts = torch.tensor([place for sample in samples for place in sample.extra.get('second') or sample.segment_lengths])
            batch.inputs = {'token_type_ids': _token_types(batch, starts)}
        return batch

    # ---- the loss

    def scores(self, batch: Batch, actors: Actors) -> Tensor:
        """[S] how well each document answers its query."""
        return actors.policy.scores(batch)[:, 0].float()

    def weight(self, batch: Batch) -> float:
        """Documents, or with the listwise loss positives."""
        if batch.extra.get('filler'):
            return 0.0
        relevance = batch.extra['ranking']['relevance']
        return float((relevance >= 0.5).sum() if self.name == 'listwise_reranker' else len(relevance))

    def loss(self, batch: Batch, actors: Actors) -> Loss:
        """Of all items of the batch."""
        z, ranking = self.scores(batch, actors), batch.extra['ranking']
        relevance = ranking['relevance']
        outputs = {'scores': z, 'relevance': relevance, 'query': ranking['query']}
        if self.own is not None:
            value = self.own(Outputs(logits=z[:, None], row=ranking['row']), relevance)
            return Loss(mean_of(self.name, value) * len(z), {}, outputs)
        if self.name == 'listwise_reranker':
            values, metrics = listwise(z, relevance >= 0.5, ranking['row'], self.args.listwise_temperature)
        else:
            values, metrics = pointwise(z, relevance)
        return Loss(values.sum(), metrics, outputs)

    def measure(self, outputs: dict[str, Tensor]) -> dict[str, float]:
        """`mrr` and `ndcg@10` over the queries of the evaluation, each with all documents that any row has for it."""
        return group_metrics(outputs['scores'].float(), outputs['relevance'], outputs['query'])


def pointwise(z: Tensor, relevance: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """([S] losses, metrics) of scores [S] against relevance [S] from 0 to 1."""
    relevant, probability = relevance >= 0.5, torch.sigmoid(z)
    metrics = {
        'accuracy': ((z > 0) == relevant).float(),
        'positive_score': probability[relevant],
        'negative_score': probability[~relevant],
    }
    return F.binary_cross_entropy_with_logits(z, relevance, reduction='none'), metrics


def listwise(z: Tensor, relevant: Tensor, row: Tensor, temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """([P] losses, metrics) of every relevant document against the irrelevant ones of its row."""
    positives, negatives = relevant.nonzero()[:, 0], (~relevant).nonzero()[:, 0]
    other = row[positives][:, None] != row[negatives][None]
    right, wrong = z[positives], z[negatives].expand(len(positives), -1).masked_fill(other, -math.inf)
    values = torch.logsumexp(torch.cat([right[:, None], wrong], 1) / temperature, 1) - right / temperature
    if not len(negatives):
        return values, {}
    margin = right - wrong.amax(1)
    return values, {'accuracy': (margin > 0).float(), 'margin': margin}


def _token_types(batch: Batch, starts: Tensor) -> Tensor:
    """Shape of input_ids: 0 in the first text of a segment, 1 from `starts` [S] (within the segment) on."""
    if not batch.flat:
        return (torch.arange(batch.input_ids.shape[1])[None] >= starts[:, None]).long() * batch.attention_mask
    return (batch.position_ids[0] >= torch.repeat_interleave(starts, batch.lengths)).long()[None]


# ---- how query and document are read together


class Reader:
    """Query (messages) and documents → (every segment, facts for the sample). Raises RowError."""

    def __init__(self, template: Template):
        self.template, self.tokenizer = template, template.tokenizer

    def __call__(self, query: Sequence[Message], documents: Sequence[list[Part]]) -> tuple[list[Text], dict[str, Any]]:
        return [fitted(lambda parts: self.render(query, parts), document, self.template) for document in documents], {}

    def render(self, query: Sequence[Message], document: list[Part]) -> Text:
        """One segment."""
        raise NotImplementedError


class Dialogue(Reader):
    """By the chat template: the query is what the user says (with its system message), the document what the assistant answers."""

    def render(self, query: Sequence[Message], document: list[Part]) -> Text:
        said = content_of(document)
        if not isinstance(said, str):  # as a text with placeholders: many templates print media of the user only
            said = self.template.prompt(Conversation([{'role': 'user', 'content': said}], text=True)).text
        text = self.template.apply_chat_template([*query, {'role': 'assistant', 'content': said}])
        found = self.template.shown(text, Conversation([*query, {'role': 'assistant', 'content': content_of(document)}]))
        return Text(list(found.input_ids), found.media) if found else Text(self.tokenizer(text, add_special_tokens=False)['input_ids'])


class Pair(Reader):
    """By the tokenizer's own form for two texts, with its token types; where it puts nothing between them, a line break.

    What shows something is read as a dialogue, where there is a chat template, else with a line break between the two.
    """

    def __init__(self, template: Template):
        super().__init__(template)
        joined = [id for text in ('a', 'b') for id in self.tokenizer(text, add_special_tokens=False)['input_ids']]
        both = self.tokenizer('a', 'b')['input_ids']
        self.apart = all(both[at : at + len(joined)] != joined for at in range(len(both)))
        self.types = 'token_type_ids' in self.tokenizer.model_input_names
        self.eos = ending(self.tokenizer)

    def __call__(self, query: Sequence[Message], documents: Sequence[list[Part]]) -> tuple[list[Text], dict[str, Any]]:
        shows = media_of(query) or any(is_medium(part) for document in documents for part in document)
        if shows and self.template.chat_template:
            return Dialogue(self.template)(query, documents)
        if shows or not self.apart:
            return super().__call__(query, documents)
        text, others = text_of(query), [content_of(document) for document in documents]
        encoded = self.tokenizer([text] * len(documents), others, return_token_type_ids=True)
        parts, seconds = [], []
        for index, (ids, types) in enumerate(zip(encoded['input_ids'], encoded['token_type_ids'], strict=True)):
            ids, types = self._cut(ids, types, encoded, index)
            parts.append(Text(ids))
            seconds.append(types.index(1) if 1 in types else len(types))
        return parts, {'second': seconds} if self.types else {}

    def render(self, query: Sequence[Message], document: list[Part]) -> Text:
        body = parts_of([*query, {'content': '\n'}, {'content': document}])
        if any(map(is_medium, body)):
            return plainly([{'role': 'user', 'content': body}], self.template, self.eos)
        ids = self.tokenizer(content_of(body))['input_ids']
        return Text(ids if self.eos is None else [*ids, self.eos])

    def _cut(self, ids: list[int], types: list[int], encoded: Any, index: int) -> tuple[list[int], list[int]]:
        """The pair within `max_length`: tokens of the document are left out, on the side that `truncation_strategy` names."""
        limit = self.template.max_length
        if limit is None or len(ids) <= limit:
            return ids, types
        if self.template.truncation_strategy == 'delete':
            raise RowTooLong(f'query and document have {len(ids)} tokens, more than max_length {limit}')
        if not encoded.is_fast:
            raise SwiftError('this tokenizer can not tell which tokens of a pair are the document;', 'use --truncation_strategy delete')
        places = [place for place, text in enumerate(encoded.sequence_ids(index)) if text == 1]
        surplus = len(ids) - limit
        if surplus >= len(places):
            raise RowTooLong(f'the row has {len(ids)} tokens, and no document fits beside its query within max_length {limit}')
        dropped = set(places[-surplus:] if self.template.truncation_strategy == 'right' else places[:surplus])
        return tuple([value for place, value in enumerate(values) if place not in dropped] for values in (ids, types))
