"""Two engines of one model side by side, in any environment that has both."""

from swift.infer_engine import AdapterRequest, InferRequest, RequestConfig

SETTINGS = {'dtype': 'float32', 'enforce_eager': True, 'max_model_len': 512, 'max_num_seqs': 8, 'max_lora_rank': 16}
QUESTIONS = ['What is 2 + 3?', '你好，你是谁？', 'Write one sentence about the sea.', 'What comes after i in the alphabet?', 'x']


def ask(text):
    return InferRequest([{'role': 'user', 'content': text}])


def compare(ours, theirs, adapter):
    """Greedy tokens, texts, log-probabilities and streams of both engines, without and with the adapter."""
    config = RequestConfig(max_tokens=24, temperature=0, return_details=True, logprobs=True, top_logprobs=2)
    requests = [ask(text) for text in QUESTIONS]
    seen = []
    for chosen in (None, AdapterRequest('mine', adapter)):
        expected = ours.infer(requests, config, adapter_request=chosen)
        found = theirs.infer(requests, config, adapter_request=chosen)
        streams = [list(theirs.infer([r], RequestConfig(max_tokens=24, temperature=0, stream=True), adapter_request=chosen)[0]) for r in requests]
        for a, b, pieces in zip(expected, found, streams, strict=True):
            x, y = a.choices[0], b.choices[0]
            assert (y.token_ids, y.message, y.finish_reason) == (x.token_ids, x.message, x.finish_reason)
            assert (b.prompt_token_ids, b.usage) == (a.prompt_token_ids, a.usage)
            gaps = [abs(p['logprob'] - q['logprob']) for p, q in zip(x.logprobs['content'], y.logprobs['content'], strict=True)]
            assert max(gaps) < 1e-4
            assert ''.join(p.choices[0].delta.content or '' for p in pieces) == x.message.content
            assert pieces[-1].usage == a.usage
        seen.append([answer.choices[0].token_ids for answer in found])
    assert sum(a != b for a, b in zip(*seen, strict=True)) >= 3  # the adapter does change answers
