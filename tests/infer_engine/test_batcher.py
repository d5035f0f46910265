"""Callers that come at once share batches, and each gets the answer to its own text."""

import asyncio
import time

import pytest

from swift.core.errors import SwiftError
from swift.infer_engine import DynamicBatcher, RequestConfig, TransformersEngine

TEXTS = [f'number {i} ' * (1 + i % 5) for i in range(30)]
GREEDY = RequestConfig(max_tokens=10, temperature=0)


def greedy(model, tokenizer, text):
    import torch

    ids = torch.tensor([tokenizer.encode(text)])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)[0, ids.shape[1] :]
    return tokenizer.decode(out, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_every_caller_gets_its_own_answer_without_the_prompt(model, tokenizer):
    batcher = DynamicBatcher(model, tokenizer, max_batch_size=8, request_config=GREEDY)
    batcher.start()

    async def main():
        return await asyncio.gather(*(batcher.predict(text) for text in TEXTS))

    answers = asyncio.run(main())
    batcher.stop()
    assert answers == [greedy(model, tokenizer, text) for text in TEXTS]
    assert len(set(answers)) > 3


def test_a_conversation_and_an_engine_that_is_there(engine):
    batcher = DynamicBatcher(engine, max_batch_size=4, request_config=GREEDY, chat=True)
    batcher.start()

    async def main():
        return await asyncio.gather(*(batcher.predict(text) for text in TEXTS[:6]))

    alone = engine.infer([{'messages': [{'role': 'user', 'content': text}]} for text in TEXTS[:6]], GREEDY)
    assert asyncio.run(main()) == [answer.choices[0].message.content for answer in alone]


class Counting(TransformersEngine):
    """Notes how many texts are under way together."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.starts = []

    async def generate_async(self, prompt, config, adapter):
        self.starts.append(time.perf_counter())
        return await super().generate_async(prompt, config, adapter)


def test_a_batch_starts_when_it_is_full_or_has_waited(model, template):
    engine = Counting(model, template=template)
    batcher = DynamicBatcher(engine, max_batch_size=3, max_wait_time=0.2, request_config=RequestConfig(max_tokens=1))
    batcher.start()

    async def main():
        began = time.perf_counter()
        await asyncio.gather(*(batcher.predict(text) for text in TEXTS[:4]))
        return [start - began for start in engine.starts]

    asyncio.run(main())
    early = asyncio.run(main())[4:]
    assert max(early[:3]) < 0.1 and 0.15 < early[3] < 1


def test_a_caller_that_leaves_and_a_text_that_fails(engine):
    batcher = DynamicBatcher(engine, request_config=RequestConfig(max_tokens=200, ignore_eos=True))
    with pytest.raises(SwiftError, match='call start'):
        asyncio.run(batcher.predict('x'))
    batcher.start()

    async def main():
        leaving = asyncio.create_task(batcher.predict('hello'))
        await asyncio.sleep(0.05)
        leaving.cancel()
        empty, good = await asyncio.gather(batcher.predict(''), DynamicBatcherQuick(engine), return_exceptions=True)
        return empty, good

    empty, good = asyncio.run(main())
    assert isinstance(empty, SwiftError) and 'the text is empty' in str(empty)
    assert isinstance(good, str)


async def DynamicBatcherQuick(engine):
    batcher = DynamicBatcher(engine, request_config=GREEDY)
    batcher.start()
    return await batcher.predict('still here')


def test_mistakes(model):
    with pytest.raises(SwiftError, match='max_batch_size=0'):
        DynamicBatcher(model, None, max_batch_size=0)
    with pytest.raises(SwiftError, match='without a tokenizer'):
        DynamicBatcher(model)
