"""A loss of your own: cross entropy plus a penalty on over-confident tokens.

swift sft --external_plugins examples/custom/loss.py --loss_type confident ...
"""

import torch.nn.functional as F

from swift.plugin import loss_map


def confident(outputs, labels, num_items_in_batch=None, **kwargs):
    """`outputs.logits` [B, L, V], `labels` [B, L], -100 where nothing is trained; returns the mean over the trained tokens."""
    logits, labels = outputs.logits[:, :-1].float(), labels[:, 1:]
    kept = labels != -100
    logps = F.log_softmax(logits[kept], dim=-1)
    loss = F.nll_loss(logps, labels[kept], reduction='sum')
    penalty = 0.01 * logps.amax(-1).exp().square().sum()
    return (loss + penalty) / (num_items_in_batch or kept.sum())


loss_map['confident'] = confident
