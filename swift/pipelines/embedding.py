"""What an embedding model needs beside its weights, so that other programs make of a text the vector that was trained."""

from __future__ import annotations

from typing import Any

from swift.model.sentence_transformers import end_with, write_files
from swift.model.tokens import tokenizer_of
from swift.objectives.texts import ending


def as_trained(processor: Any, args: Any) -> Any:
    """The processor as checkpoints of an embedding model carry it: texts end with the token that was trained; else as it is."""
    tokenizer = tokenizer_of(processor)
    if _plain(args) and args.pooling == 'last' and ending(tokenizer) is not None:
        end_with(tokenizer, tokenizer.eos_token)
    return processor


def write_beside(folder: str, model: Any, args: Any) -> None:
    """The files of sentence-transformers beside the weights of an embedding model; nothing for others, and nothing with a chat
    template, which sentence-transformers does not apply."""
    if _plain(args):
        size = model.get_input_embeddings().weight.shape[1]
        size = getattr(model.config.get_text_config(), 'hidden_size', None) or size
        write_files(folder, pooling=args.pooling, hidden_size=size, max_length=args.max_length)


def _plain(args: Any) -> bool:
    """An embedding model that gets texts as they are."""
    return args.task_type == 'embedding' and not args.use_chat_template
