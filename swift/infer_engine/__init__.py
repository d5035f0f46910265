"""Prompt → Completion by some backend, and the words in which a user asks: requests in, OpenAI-shaped answers out.

The nouns are plain dataclasses (`protocol.py`); a backend is one file with `generate` (`base.py`).
"""

from swift.core.lazy import lazy_face

_NAMES = {
    'InferEngine': 'swift.infer_engine.base',
    'Chunk': 'swift.infer_engine.base',
    'TransformersEngine': 'swift.infer_engine.transformers',
    'InferRequest': 'swift.infer_engine.protocol',
    'RequestConfig': 'swift.infer_engine.protocol',
    'AdapterRequest': 'swift.infer_engine.protocol',
    'ChatCompletionResponse': 'swift.infer_engine.protocol',
    'ChatCompletionResponseChoice': 'swift.infer_engine.protocol',
    'ChatCompletionStreamResponse': 'swift.infer_engine.protocol',
    'ChatCompletionResponseStreamChoice': 'swift.infer_engine.protocol',
    'ChatMessage': 'swift.infer_engine.protocol',
    'DeltaMessage': 'swift.infer_engine.protocol',
    'UsageInfo': 'swift.infer_engine.protocol',
    'ClientEngine': 'swift.infer_engine.client',
    'VllmEngine': 'swift.infer_engine.vllm',
    'VllmServer': 'swift.infer_engine.vllm_server',
    'SglangEngine': 'swift.infer_engine.sglang',
    'LmdeployEngine': 'swift.infer_engine.lmdeploy',
    'DynamicBatcher': 'swift.infer_engine.batcher',
    'PtEngine': 'swift.infer_engine.transformers:TransformersEngine',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
