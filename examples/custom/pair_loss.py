"""A preference loss of your own: the sigmoid loss, but rows may ask for a margin (column `margin`).

swift rlhf --rlhf_type dpo --external_plugins examples/custom/pair_loss.py --loss_type offset ...
"""

import torch.nn.functional as F

from swift import register_pair_loss


@register_pair_loss('offset')
def offset(pairs, args, scale=1.0):
    """[P] losses. `scale` is set by `--loss_kwargs '{"scale": 2}'`."""
    wanted = 0 if pairs.margin is None else scale * pairs.margin
    return -F.logsigmoid(args.beta * pairs.ratio.gap - wanted)
