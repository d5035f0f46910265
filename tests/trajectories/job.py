"""Trainings in a process of their own: `job.py interrupt RUN_DIR` and, under torchrun, `job.py ddp OUT_DIR` and
`job.py methods OUT_DIR RUN RUN …` or `job.py shown OUT_DIR RUN RUN …`."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

import swift  # noqa: F401  (before transformers, for which it may stand in for torchvision)

from transformers import TrainerCallback  # isort: skip

from swift.core.dist import rank, world_size
from swift.parallel import group
from swift.trainers.resume import resolve_resume
from tests.trajectories.toy import curve, make_rows, make_trainer, weights, without_clock

DDP_CASES = {
    'lora': dict(tuner='lora'),
    'full': dict(tuner='full'),
    'packed': dict(tuner='lora', packing=True),
    'padded': dict(tuner='lora', padded=True),
}
SLOW = dict(num_train_epochs=20.0, logging_steps=1)


class Loud(TrainerCallback):
    """Says where training is, and gives the test time to interfere."""

    def on_step_end(self, args, state, control, **kwargs):
        print(f'step {state.global_step}', flush=True)
        time.sleep(0.02)


def ddp(out: str) -> None:
    """Every case on all processes; the first one writes weights and losses."""
    group.start_group(device_type='cpu')
    for name, case in DDP_CASES.items():
        trainer = ddp_trainer(os.path.join(out, name), case)
        trainer.train()
        mine = sorted(weights(trainer).items())
        together = group.gather([float(value.double().sum()) for _, value in mine])
        assert all(sums == together[0] for sums in together), 'the processes have different weights'
        assert type(trainer.model_wrapped).__name__ == 'DistributedDataParallel'
        if rank() == 0:
            torch.save({'weights': dict(mine), 'curve': curve(trainer)}, os.path.join(out, name + '.pt'))
    files = group.gather(None)
    if rank() == 0:
        print(json.dumps({'processes': len(files)}))
    group.stop_group()


def ddp_trainer(run_dir: str, case: dict):
    """The same global batch of 8 whatever the number of processes; 27 rows leave an uneven tail."""
    per_device = (4 if case.get('packing') else 8) // world_size()
    return make_trainer(run_dir, **case, dropout=0.0, rows=make_rows(27), val=make_rows(5, seed=3), per_device_train_batch_size=per_device,
                        eval_strategy='epoch', gradient_accumulation_steps=1, logging_steps=1, save_strategy='epoch', learning_rate=1e-3)


def methods(out: str) -> None:
    """Every named run (`dpo-lora`) through its command; the first process writes its log, or why it failed."""
    each_run(out, lambda name: without_clock(method_run(out, name)['log_history']))


def each_run(out: str, run: Callable[[str], Any]) -> None:
    """What `run` gives for every name on the command line, or its traceback, into files of the first process."""
    for name in sys.argv[3:]:
        try:
            found = run(name)
        except Exception:
            found = traceback.format_exc()
        if rank() == 0:
            torch.save(found, os.path.join(out, name + '.pt'))
    if rank() == 0:
        print(json.dumps({'runs': len(sys.argv) - 3, 'processes': world_size()}))
    group.stop_group()


def method_run(out: str, name: str) -> dict:
    """4 steps of a method on 9 rows, 8 at a time whatever the number of processes: every other step is one row and a filler.

    Adam divides by no less than 1e-5, lest it turns the rounding of a gradient near 0 into a step.
    `name`: a subject of tests/helpers/matrix.py and lora or full. Expects the models and rows that `method_files` wrote to `out`.
    """
    from swift.pipelines.rlhf import rlhf_main
    from swift.pipelines.train import pretrain_main, sft_main
    from tests.helpers.methods import CASES

    subject, tuner = name.rsplit('-', 1)
    case = CASES[subject.removesuffix('-encoder')]
    main = {'sft': sft_main, 'pt': pretrain_main, 'rlhf': rlhf_main}[case.command]
    settings = json.load(open(os.path.join(out, subject + '.json')))
    adapter = {'lora_rank': 4, 'lora_dropout': 0.0} if tuner == 'lora' else {}
    return main({
        **settings, **adapter, 'tuner_type': tuner, 'output_dir': os.path.join(out, name, str(world_size())), 'max_steps': 4,
        'per_device_train_batch_size': 8 // world_size(), 'per_device_eval_batch_size': 4 // world_size(), 'save_steps': 4,
        'logging_steps': 1, 'learning_rate': 1e-3, 'adam_epsilon': 1e-5, 'val_dataset': settings['dataset'] + '#3', 'eval_steps': 2,
    })  # fmt: skip


def shown(out: str) -> None:
    """Every named run (`llava-full`) on rows of which one process gets the pictures and the other one texts."""

    def run(name: str) -> dict:
        result = shown_run(out, name)
        return {'log': without_clock(result['log_history']), 'weights': stored_weights(result['last_model_checkpoint'])}

    each_run(out, run)


def shown_run(out: str, name: str) -> dict:
    """3 steps of 4 rows, two each where there are two processes; everything learns. Expects what `shown_files` wrote."""
    from swift.pipelines.train import sft_main

    family, tuner = name.rsplit('-', 1)
    adapter = {'lora_rank': 4, 'lora_dropout': 0.0} if tuner == 'lora' else {}
    return sft_main({
        'model': os.path.join(out, family), 'dataset': os.path.join(out, f'{family}.jsonl'), 'tuner_type': tuner, **adapter,
        'freeze_vit': False, 'freeze_aligner': False, 'output_dir': os.path.join(out, name, str(world_size())), 'max_steps': 3,
        'per_device_train_batch_size': 4 // world_size(), 'save_steps': 3, 'logging_steps': 1, 'learning_rate': 1e-3, 'adam_epsilon': 1e-5,
        'dataset_shuffle': False, 'train_dataloader_shuffle': False,
    })  # fmt: skip


def shown_files(out: str, families: list) -> None:
    """What the runs of the families read: two rows that show something, then two of text, three times over."""
    from tests.helpers.vlm import media_of, save_vlm
    from tests.helpers.vlm_media import save_medium

    for family in families:
        save_vlm(os.path.join(out, family), family)
        kind = media_of(family)[0]
        rows = []
        for number in range(12):
            said = [{'role': 'user', 'content': f'How much is {number}?'}, {'role': 'assistant', 'content': f'It is {number}.'}]
            if number % 4 < 2:
                said[0]['content'] = f'<{kind}>' + said[0]['content']
                rows.append({'messages': said, f'{kind}s': [save_medium(os.path.join(out, f'{kind}{number}'), kind, number)]})
            else:
                rows.append({'messages': said})
        with open(os.path.join(out, f'{family}.jsonl'), 'w') as file:
            file.writelines(json.dumps(row) + '\n' for row in rows)


def stored_weights(checkpoint: str) -> dict:
    """Every tensor of a checkpoint's model or adapter."""
    import glob

    from safetensors.torch import load_file

    return {k: v for path in sorted(glob.glob(os.path.join(checkpoint, '*model*.safetensors'))) for k, v in load_file(path).items()}


def method_files(out: str, subjects: list) -> None:
    """What the runs of the subjects read."""
    from tests.helpers.methods import case_settings
    from tests.helpers.tiny import NO_DROPOUT, save_encoder, save_tiny

    models = {False: save_tiny(os.path.join(out, 'tiny'), classifier_dropout=0.0), True: save_encoder(os.path.join(out, 'encoder'), **NO_DROPOUT)}
    for subject in subjects:
        with open(os.path.join(out, f'{subject}.json'), 'w') as file:
            json.dump(case_settings(subject.method, out, models[subject.encoder], count=9), file)


def interrupt(run_dir: str) -> None:
    """A long run that says each step; continues by itself what is in run_dir."""
    trainer = make_trainer(run_dir, **SLOW)
    trainer.add_callback(Loud())
    trainer.callback_handler.callbacks.sort(key=lambda callback: type(callback).__name__ == 'InterruptCallback')
    trainer.train(resume_from_checkpoint=resolve_resume('true', run_dir) if 'resume' in sys.argv else None)


if __name__ == '__main__':
    {'ddp': ddp, 'interrupt': interrupt, 'methods': methods, 'shown': shown}[sys.argv[1]](sys.argv[2])
