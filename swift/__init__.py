"""swift: Scalable lightWeight Infrastructure for Fine-Tuning.

    from swift import sft_main
    result = sft_main(['--model', 'tiny', '--dataset', 'data.jsonl'])

Names are imported when they are first used, so `import swift` is instant.
"""

from swift.core.lazy import lazy_face

__version__ = '0.1.0'
__getattr__, __dir__, __all__ = lazy_face(__name__, {})
