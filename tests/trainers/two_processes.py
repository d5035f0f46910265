"""Run by test_trainer, imported and under torchrun: the same global batches; curves and weights are written to argv[1]."""

import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch  # noqa: E402

from swift.core.dist import rank, world_size  # noqa: E402
from swift.dataset.loader import make_loader  # noqa: E402
from swift.objectives import get_objective  # noqa: E402
from swift.parallel import group  # noqa: E402
from swift.trainers.factory import build_trainer  # noqa: E402
from swift.trainers.selfcheck import plan  # noqa: E402
from tests.helpers.tiny import build_model  # noqa: E402
from tests.helpers.training import Listed, log_lines, random_samples, train_args  # noqa: E402


def run(padded: bool) -> dict:
    size = 8 // world_size()
    samples = Listed(random_samples(29))
    model = build_model()
    args = train_args(num_train_epochs=2, per_device_train_batch_size=size, gradient_accumulation_steps=2, eval_strategy='epoch')
    objective = get_objective('sft', args)
    chosen = plan(model, samples, flat=not padded)
    collate = partial(objective.collate, padded=padded)
    shape = dict(batch_size=size, rank=rank(), world_size=world_size())
    trainer = build_trainer(
        model, args, objective, make_loader(samples, collate, **shape), run_dir=tempfile.mkdtemp(), plan=chosen,
        eval_loaders=make_loader(Listed(random_samples(11, seed=5)), collate, shuffle=False, **shape),
    )  # fmt: skip
    trainer.train()
    return {
        'lines': torch.tensor(log_lines(trainer, 'loss', 'grad_norm', 'token_acc')),
        'eval': torch.tensor([line['eval_loss'] for line in trainer.state.log_history if 'eval_loss' in line]),
        'weights': torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()]),
    }


def results() -> dict:
    """Flat and padded."""
    return {str(padded): run(padded) for padded in (False, True)}


if __name__ == '__main__':
    torch.set_num_threads(1)
    group.start_group(device_type='cpu')
    found = results()
    if rank() == 0:
        torch.save(found, sys.argv[1])
    group.barrier()
    group.stop_group()
