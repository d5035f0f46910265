"""Something of your own during training: a line of JSON for every logged step.

swift sft --external_plugins examples/custom/callback.py --callbacks journal ...
"""

import json
import os

from transformers import TrainerCallback

from swift.callbacks import callbacks_map


class Journal(TrainerCallback):
    """Appends to `journal.jsonl` in the run's folder."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        self.lines = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and logs and 'loss' in logs:
            self.lines.append({'step': state.global_step, 'loss': logs['loss']})

    def on_train_end(self, args, state, control, **kwargs):
        if state.is_world_process_zero:
            with open(os.path.join(args.output_dir, 'journal.jsonl'), 'w', encoding='utf-8') as file:
                file.writelines(json.dumps(line) + '\n' for line in self.lines)


callbacks_map['journal'] = Journal
