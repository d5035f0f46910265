"""Plots of TensorBoard events."""

import os

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from swift.utils import plot_images


def test_one_picture_a_scalar(tmp_path):
    with SummaryWriter(str(tmp_path / 'runs')) as writer:
        for step in range(20):
            writer.add_scalar('train/loss', 2.0 / (step + 1), step)
            writer.add_scalar('eval/loss', 1.0, step)
    paths = plot_images(str(tmp_path / 'images'), str(tmp_path / 'runs'), ['train/loss'], 0.9)
    assert sorted(os.path.basename(path) for path in paths) == ['eval_loss.png', 'train_loss.png']
    Image = pytest.importorskip('PIL.Image')
    picture = np.asarray(Image.open(tmp_path / 'images' / 'train_loss.png').convert('L'))
    assert picture.shape[0] > 300 and picture.std() > 5  # something is drawn
