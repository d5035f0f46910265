"""`swift export` and `swift merge-lora`: what was trained, in the form that another program wants."""

from __future__ import annotations

from typing import Any

from swift.core.errors import SwiftError
from swift.core.log import get_logger
from swift.pipelines.base import SwiftPipeline


def export_main(args: Any = None) -> str:
    """Merge and upload, in this order, as asked. Returns the directory of the result."""
    return SwiftExport(args).main()


def merge_lora_main(args: Any = None) -> str:
    """Merge adapters into their model. Returns the directory of the merged model."""
    return SwiftMergeLoRA(args).main()


class SwiftExport(SwiftPipeline):
    """The pipeline of `swift export`."""

    command = 'export'

    def run(self) -> str:
        """Do what the arguments ask for and return the directory it ended in."""
        args = self.args
        if not (args.merge_lora or args.push_to_hub):
            raise SwiftError('export was asked for nothing;', 'pass --merge_lora true, or --push_to_hub true')
        directory = self._source()
        if args.merge_lora:
            from swift.export.merge import merge_lora

            directory = merge_lora(args)
            print(directory)
        if args.push_to_hub:
            from swift.export.hub import push

            push(directory, args, args.commit_message)
        return directory

    def _source(self) -> str:
        """What is exported as it is when nothing is made of it: the adapter, or the model."""
        from swift.model.load import find_model

        args = self.args
        if args.merge_lora:
            return ''
        found = find_model(args)
        if len(found.adapters) > 1:
            get_logger().warning('of several adapters the first one is uploaded: %s', found.adapters[0])
        return found.adapters[0] if found.adapters else found.model_dir


class SwiftMergeLoRA(SwiftExport):
    """The pipeline of `swift merge-lora`."""

    command = 'merge-lora'
