"""Ctrl-C and SIGTERM: finish the step, save, say how to go on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import Any

from transformers import TrainerCallback

from swift.core.dist import is_master, world_size
from swift.core.log import get_logger
from swift.parallel import group
from swift.trainers.resume import find_last_complete


class Interrupted(SystemExit):
    """Training was asked to stop and has saved; the exit code is 128 + the signal (130 for Ctrl-C, 143 for SIGTERM)."""

    def __init__(self, number: int, checkpoint: str | None):
        super().__init__(128 + number)
        self.checkpoint = checkpoint


class InterruptCallback(TrainerCallback):
    """While training runs, the first SIGINT or SIGTERM ends it after the current step with a checkpoint; a second one at once.

    `command` is the swift command that continues the run. Put it last: at the end of an interrupted training it raises
    Interrupted, after every other callback has written what it writes. Outside the main thread (two trainings in one Python
    process) signals stay with the program. With several processes all stop at the same step, whichever was signalled.
    """

    def __init__(self, command: str = 'sft', save: bool = True):
        self.command = command
        self.save = save
        self.number: int | None = None
        self._previous: dict[int, Any] = {}
        self._vote: tuple[Any, Any] | None = None
        self._group: Any = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take over the two signals."""
        self.number = None
        if group.active():
            import torch.distributed as dist

            self._group = dist.new_group(backend='gloo')
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._received)

    def _received(self, number: int, frame: Any) -> None:
        if self.number is not None:
            self._restore()
            os.kill(os.getpid(), number)  # as if we had never been here
            return
        self.number = number
        if is_master():
            name = 'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name
            print(f'\n{name}: finishing this step{" and saving" if self.save else ""}; once more to stop at once', file=sys.stderr)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Ask for a checkpoint and the end when a signal has come (to any process)."""
        if self._agreed():
            control.should_save = control.should_save or self.save
            control.should_training_stop = True
        return control

    def _agreed(self) -> bool:
        """Whether some process was signalled: known at once in a single process, one step later in several.

        The vote of a step is collected in the background (on the CPU, so no accelerator waits for it) and read at the next,
        the same one on every process.
        """
        if self._group is None:
            return self.number is not None
        import torch
        import torch.distributed as dist

        number = 0
        if self._vote is not None:
            work, ballot = self._vote
            work.wait()
            number = int(ballot.item())
        ballot = torch.tensor([self.number or 0], dtype=torch.int32)
        self._vote = (dist.all_reduce(ballot, op=dist.ReduceOp.MAX, group=self._group, async_op=True), ballot)
        if number and self.number is None:
            self.number = number
        return number != 0

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Give the signals back; after an interruption say how to continue and leave."""
        self._restore()
        if self._vote is not None:
            self._vote[0].wait()
            self._vote = None
        if self.number is None or state.global_step >= state.max_steps:
            return
        checkpoint = find_last_complete(args.output_dir)
        if is_master():
            if checkpoint is None:
                get_logger().warning('stopped at step %d of %d; nothing was saved', state.global_step, state.max_steps)
            else:
                several = f'NPROC_PER_NODE={world_size()} ' if world_size() > 1 else ''
                get_logger().info('stopped at step %d of %d; to continue:\n  %sswift %s --resume_from_checkpoint %s',
                                  state.global_step, state.max_steps, several, self.command, checkpoint)
        group.barrier()  # nobody leaves, and makes the launcher end the others, before everything is written
        raise Interrupted(self.number, checkpoint)

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
