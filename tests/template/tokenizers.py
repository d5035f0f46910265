"""Small tokenizers of every kind: byte-level words, sentence pieces with a prefix space, and one without offsets."""

from functools import lru_cache

from tests.template.cases import BOS, EOS, NAMES, source

_TEXT = [
    'The quick brown fox says that it is this, what is it? ASK SAY DONE END 0 1 2. user assistant',
    'be brief. weather of a city, sunny: {"name": "x", "arguments": {}} 你好世界 答案是北京',
]


def specials() -> list[str]:
    """Every `<|…|>` that the templates print."""
    import re

    found = {m for name in NAMES for m in re.findall(r'<\|[\w/]+\|>|<end>|<turn:\w+>', source(name))}
    return sorted(found)


@lru_cache
def byte_level(chat_template: str | None = None, bos: bool = False):
    """GPT-style byte-level BPE; `bos`: the tokenizer puts `<s>` before plain texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    names = ['<pad>', BOS, EOS, *specials()]
    core.train_from_iterator(
        _TEXT * 3,
        trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=names,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    if bos:
        core.post_processor = processors.TemplateProcessing(
            single=f'{BOS} $A', pair=f'{BOS} $A $B', special_tokens=[(BOS, 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token=BOS, eos_token=EOS, pad_token='<pad>', chat_template=chat_template
    )


@lru_cache
def pieces(chat_template: str | None = None):
    """Sentence pieces: white space is part of words, and a text begins with one that is not there."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE(unk_token='<unk>', byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme='first')
    core.decoder = decoders.Metaspace(prepend_scheme='first')
    names = ['<pad>', BOS, EOS, '<unk>', *[f'<0x{i:02X}>' for i in range(256)], *specials()]
    core.train_from_iterator(_TEXT * 3, trainers.BpeTrainer(vocab_size=700, special_tokens=names, show_progress=False))
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=EOS,
        pad_token='<pad>',
        unk_token='<unk>',
        chat_template=chat_template,
    )


@lru_cache
def without_offsets(chat_template: str | None = None):
    """A tokenizer in Python, as remote code has them: pairs of letters are one token, no offsets."""
    import re

    from transformers import PythonBackend

    class Pairs(PythonBackend):
        def __init__(self, **kwargs):
            self._ids = {t: i for i, t in enumerate(['<pad>', BOS, EOS, *specials()])}
            super().__init__(bos_token=BOS, eos_token=EOS, pad_token='<pad>', **kwargs)

        @property
        def vocab_size(self):
            return 100_000

        def get_vocab(self):
            return dict(self._ids)

        def _tokenize(self, text, **kwargs):
            return re.findall(r'[a-z]{2}|\s+|.', text, re.DOTALL)

        def _convert_token_to_id(self, token):
            return self._ids.setdefault(token, len(self._ids))

        def _convert_id_to_token(self, index):
            return next(t for t, i in self._ids.items() if i == index)

        def convert_tokens_to_string(self, tokens):
            return ''.join(tokens)

    made = Pairs(chat_template=chat_template)
    made.add_special_tokens({'additional_special_tokens': specials()})
    return made
