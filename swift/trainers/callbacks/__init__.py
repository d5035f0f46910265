"""What happens beside the training loop: progress, records, plots, early stopping, signals, and a user's own callbacks.

    from swift.callbacks import callbacks_map        # register: callbacks_map['mine'] = Mine, use: --callbacks mine
"""

from swift.trainers.callbacks.registry import callbacks_map, make_callback

__all__ = ['callbacks_map', 'make_callback']
