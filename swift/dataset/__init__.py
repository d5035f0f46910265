"""Rows of any shape, from files, hubs or streams → conversations; their tokens on disk; micro-batches in training order."""

from swift.core.lazy import lazy_face

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        'AddLengthPreprocessor': 'swift.dataset.compat',
        'AlpacaPreprocessor': 'swift.dataset.convert',
        'AutoPreprocessor': 'swift.dataset.convert',
        'BadRows': 'swift.dataset.bad_rows',
        'Conversations': 'swift.dataset.sources',
        'DatasetLoader': 'swift.dataset.load',
        'DatasetMeta': 'swift.dataset.registry',
        'EncodePreprocessor': 'swift.dataset.compat',
        'IterablePackingDataset': 'swift.dataset.compat',
        'LazyLLMDataset': 'swift.dataset.compat',
        'LazySamples': 'swift.dataset.encode',
        'MessagesPreprocessor': 'swift.dataset.convert',
        'MultiModalDataset': 'swift.dataset.multimodal',
        'PackingDataset': 'swift.dataset.compat',
        'ResponsePreprocessor': 'swift.dataset.convert',
        'RowPreprocessor': 'swift.dataset.convert',
        'Splits': 'swift.dataset.load',
        'Stream': 'swift.dataset.stream',
        'StreamSamples': 'swift.dataset.stream_encode',
        'SubsetDataset': 'swift.dataset.registry',
        'TokenStore': 'swift.dataset.store',
        'encode_rows': 'swift.dataset.encode',
        'load_dataset': 'swift.dataset.load',
        'make_loader': 'swift.dataset.loader',
        'pack': 'swift.dataset.packing',
        'register_dataset': 'swift.dataset.registry',
    },
)
