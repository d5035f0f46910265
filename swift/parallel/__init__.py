"""How a job is spread over processes and devices: launching, the process group, device facts.

`launch` is standard library only (the command line imports it before torch); `device` and `group` import torch.
"""
