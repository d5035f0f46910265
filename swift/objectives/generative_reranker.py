"""Generative rerankers: a language model is asked whether a document answers a query, and its "yes" and "no" are weighed.

The prompt is that of Qwen3-Reranker (arXiv:2506.05176, section 2): a system message that asks for one of the two words, and
instruction, query and document in the user's. With the logits of the two words at the place of the answer,
z = logit(yes) - logit(no), so that sigmoid(z) is the probability of yes among the two. Losses and metrics are those of `reranker`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from swift.core.errors import SwiftError
from swift.core.types import Actors, Batch, Conversation, Message, Sample, Template
from swift.objectives.reranker import Reader, Reranker
from swift.objectives.texts import Part, Text, content_of, parts_of, segment_ends, text_of

INSTRUCTION = 'Given a web search query, retrieve relevant passages that answer the query'
"""What the query asks for, where neither the row nor `--system` says it."""


class GenerativeReranker(Reranker):
    """`--task_type generative_reranker`. `args`: TaskArgs, `loss_type`, `loss_kwargs`."""

    @property
    def fingerprint(self) -> str:
        """Which documents of a row are used, and which words answer."""
        return repr((super().fingerprint, self.args.positive_token, self.args.negative_token))

    def reader(self, template: Template) -> Reader:
        """The question about a document."""
        return Question(template, self.args.positive_token, self.args.negative_token)

    def collate(self, samples: Sequence[Sample], padded: bool = False) -> Batch:
        """As rerankers do; `extra['answer']` says where the answer is predicted and which two tokens it may be."""
        batch = super().collate(samples, padded)
        ends = segment_ends(batch.lengths, None if batch.flat else batch.input_ids.shape[1])
        batch.extra['answer'] = {'index': ends, 'tokens': torch.tensor(samples[0].extra['tokens'])}
        return batch

    def scores(self, batch: Batch, actors: Actors) -> Tensor:
        """[S] logit(yes) - logit(no) after every prompt."""
        answer = batch.extra['answer']
        yes, no = actors.policy.logits(batch, answer['index']).index_select(1, answer['tokens']).float().unbind(1)
        return yes - no


class Question(Reader):
    """The prompt of a query and a document. Raises SwiftError for answers that are not one token each."""

    def __init__(self, template: Template, positive: str, negative: str):
        super().__init__(template)
        self.tokens = [_one_token(self.tokenizer, name, word) for name, word in (('positive_token', positive), ('negative_token', negative))]
        if self.tokens[0] == self.tokens[1]:
            raise SwiftError(f'--positive_token and --negative_token are the same token ({positive!r});', 'give two different words')
        self.task = (
            'Judge whether the Document meets the requirements based on the Query and the Instruct provided. '
            f'Note that the answer can only be "{positive}" or "{negative}".'
        )

    def __call__(self, query: Sequence[Message], documents: Sequence[list[Part]]) -> tuple[list[Text], dict[str, Any]]:
        return super().__call__(query, documents)[0], {'tokens': self.tokens}

    def render(self, query: Sequence[Message], document: list[Part]) -> Text:
        system = [message for message in query if message['role'] == 'system']
        asked = parts_of([message for message in query if message['role'] != 'system'])
        instruction = text_of(system) if system else self.template.system or INSTRUCTION
        body = [_said(f'<Instruct>: {instruction}\n<Query>: '), *asked, _said('\n<Document>: '), *document]
        if self.template.use_chat_template:
            messages = [{'role': 'system', 'content': self.task}]
        else:
            messages, body = [], [_said(f'{self.task}\n'), *body, _said('\n')]
        prompt = self.template.prompt(Conversation([*messages, {'role': 'user', 'content': content_of(body)}]))
        return Text(list(prompt.input_ids), prompt.media)


def _said(text: str) -> Part:
    return {'type': 'text', 'text': text}


def _one_token(tokenizer: Any, name: str, word: str) -> int:
    """The id of a word. Raises SwiftError when it is none or several tokens."""
    ids = tokenizer(word, add_special_tokens=False)['input_ids']
    if len(ids) != 1:
        raise SwiftError(f'--{name} {word!r} is {len(ids)} tokens of this model {tokenizer.convert_ids_to_tokens(ids)};', 'give a word that is one')
    return ids[0]
