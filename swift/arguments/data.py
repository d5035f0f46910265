"""Which rows, how they are read, mixed, shuffled and packed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass
class DataArgs:
    """What `swift.dataset` needs to turn names and files into samples."""

    dataset: list[str] = field(default_factory=list)
    """Training data: files, folders, globs, hub ids, names; id:subset#500 takes a subset and 500 rows."""
    val_dataset: list[str] = field(default_factory=list)
    """Validation data, in the same syntax."""
    split_dataset_ratio: float = 0.0
    """Share of the training data that is kept for validation when val_dataset is not given."""
    dataset_dir: str | None = None
    """Folder with a dataset_info.json whose names can be used in dataset."""
    custom_dataset_info: list[str] = field(default_factory=list)
    """Further dataset_info.json files."""
    columns: dict[str, str] = field(default_factory=dict)
    """Renames columns, as JSON: {"their name": "our name"}."""
    disable_auto_column_mapping: bool = False
    """Don't guess the meaning of columns; only columns and the standard names count."""
    model_name: list[str] = field(default_factory=list)
    """What {{name}} in self-cognition rows becomes: one name, or a Chinese and an English one."""
    model_author: list[str] = field(default_factory=list)
    """What {{author}} becomes, likewise."""
    dataset_shuffle: bool = True
    """Shuffle the training rows when they are read."""
    val_dataset_shuffle: bool = False
    """Shuffle the validation rows when they are read."""
    data_seed: int | None = None
    """Seed of splits, samples, shuffles and the training order; None: seed."""
    strict: bool = False
    """Stop at the first bad row; false: bad rows are counted, shown and skipped, up to 10 % of all."""
    dataset_num_proc: int = 1
    """Processes that read and tokenise."""
    load_from_cache_file: bool = True
    """Reuse tokens that an earlier run with the same data, template and tokenizer stored."""
    download_mode: Literal['reuse_dataset_if_exists', 'force_redownload'] = 'reuse_dataset_if_exists'
    """Whether data sets of a hub are downloaded again."""
    streaming: bool = False
    """Read rows as they are needed; for data that does not fit on disk twice."""
    shuffle_buffer_size: int = 1000
    """Rows held for shuffling when streaming."""
    interleave_prob: list[float] | None = None
    """Draw from the data sets with these probabilities instead of joining them."""
    stopping_strategy: Literal['first_exhausted', 'all_exhausted'] = 'first_exhausted'
    """With interleave_prob: end when the first, or when every data set is used up."""
    lazy_tokenize: bool | None = None
    """Tokenise rows when they are asked for; None: false (true for media)."""
    packing: bool = False
    """Join samples into rows of packing_length, each attending only to itself."""
    packing_length: int | None = None
    """Tokens of a packed row; None: max_length."""
