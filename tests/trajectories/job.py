"""Trainings in a process of their own: `job.py interrupt RUN_DIR` and, under torchrun, `job.py ddp OUT_DIR`."""

from __future__ import annotations

import json
import os
import sys
import time

import torch
from transformers import TrainerCallback

from swift.core.dist import rank, world_size
from swift.parallel import group
from swift.trainers.resume import resolve_resume
from tests.trajectories.toy import curve, make_rows, make_trainer, weights

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


def interrupt(run_dir: str) -> None:
    """A long run that says each step; continues by itself what is in run_dir."""
    trainer = make_trainer(run_dir, **SLOW)
    trainer.add_callback(Loud())
    trainer.callback_handler.callbacks.sort(key=lambda callback: type(callback).__name__ == 'InterruptCallback')
    trainer.train(resume_from_checkpoint=resolve_resume('true', run_dir) if 'resume' in sys.argv else None)


if __name__ == '__main__':
    {'ddp': ddp, 'interrupt': interrupt}[sys.argv[1]](sys.argv[2])
