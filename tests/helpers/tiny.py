"""Small random models and tokenizers of real architectures, made in seconds, for tests."""

from __future__ import annotations

import os

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_CORPUS = [
    'The quick brown fox jumps over the lazy dog. What is 12 + 30? The answer is 42.',
    'user assistant system tool hello world how are you today I am fine thank you very much',
    '你好,世界。今天天气怎么样?我很好,谢谢。请用中文回答问题。',
    'def add(a, b):\n    return a + b\n\nprint(add(1, 2))\n',
]


def build_tokenizer(vocab_size: int = 600):
    """A byte-level BPE tokenizer with ChatML specials and template; eos `<|im_end|>`, pad `<|endoftext|>`."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token='<|im_end|>',
        pad_token='<|endoftext|>',
        chat_template=CHATML,
        model_max_length=4096,
    )


def build_model(vocab_size: int = 640, *, layers: int = 2, hidden: int = 64, seed: int = 0, **config):
    """A random Qwen3 causal LM in float32."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(seed)
    settings = dict(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    return Qwen3ForCausalLM(Qwen3Config(**{**settings, **config}))


def save_tiny(path: str | os.PathLike, **kwargs) -> str:
    """Write a tiny random Qwen3 with its tokenizer to `path` (unless it is there) and return the path as a string."""
    path = str(path)
    if not os.path.exists(os.path.join(path, 'config.json')):
        build_model(**kwargs).save_pretrained(path)
        build_tokenizer().save_pretrained(path)
    return path


NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
"""Configuration of an encoder that draws no random numbers in training."""


def save_encoder(path: str | os.PathLike, **config) -> str:
    """Write a tiny random BERT with a word-piece tokenizer (no chat template) to `path` (unless it is there); the path as a string."""
    import torch
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    path = str(path)
    if os.path.exists(os.path.join(path, 'config.json')):
        return path
    specials = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    tokenizer = Tokenizer(models.WordPiece(unk_token='[UNK]'))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(_CORPUS * 4, trainers.WordPieceTrainer(vocab_size=400, special_tokens=specials, show_progress=False))
    ends = [(name, tokenizer.token_to_id(name)) for name in ('[CLS]', '[SEP]')]
    tokenizer.post_processor = processors.TemplateProcessing(single='[CLS] $A [SEP]', pair='[CLS] $A [SEP] $B:1 [SEP]:1', special_tokens=ends)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token='[PAD]', unk_token='[UNK]', cls_token='[CLS]', sep_token='[SEP]', mask_token='[MASK]',
        model_max_length=512,
    )  # fmt: skip
    torch.manual_seed(0)
    settings = dict(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=512
    )
    BertModel(BertConfig(**{**settings, **config})).save_pretrained(path)
    fast.save_pretrained(path)
    return path
