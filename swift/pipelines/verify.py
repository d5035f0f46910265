"""`swift verify`: is what was trained what will be served?

Most of this field's worst failures end with exit code 0 and a plausible loss curve. Each check here compares two ways of
computing the same thing and says by how much they differ.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from swift.core.errors import CheckpointError, RowError, SwiftError
from swift.core.types import IGNORE_INDEX, Conversation
from swift.pipelines.base import SwiftPipeline

ROWS = 64
"""Rows whose prompts are compared."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check. `ok` None: there was nothing to compare."""

    name: str
    ok: bool | None
    detail: str


def verify_main(args: Any = None) -> dict[str, Any]:
    """Run every check that applies; prints one line each and raises SwiftError when one fails."""
    return SwiftVerify(args).main()


class SwiftVerify(SwiftPipeline):
    """The pipeline of `swift verify`."""

    command = 'verify'

    def run(self) -> dict[str, Any]:
        """All checks, cheap ones first."""
        checks: list[Callable[[], Finding]] = [self._checkpoint, self._prompts, self._packing, self._merge]
        findings = []
        for check in checks:
            finding = check()
            findings.append(finding)
            sign = {True: 'ok  ', False: 'FAIL', None: '-   '}[finding.ok]
            print(f'{sign} {finding.name}: {finding.detail}')
        failed = [finding for finding in findings if finding.ok is False]
        if failed:
            raise SwiftError(f'{len(failed)} of {len(findings)} checks failed: ' + '; '.join(f'{f.name}: {f.detail}' for f in failed))
        return {finding.name: dataclasses.asdict(finding) for finding in findings}

    # ---- checks

    def _checkpoint(self) -> Finding:
        """Every file that the manifest lists is there with its full size."""
        from swift.trainers.resume import MANIFEST, what_is_missing

        name = 'checkpoint complete'
        folders = [path for path in [*self.args.adapters, self.args.model] if path and os.path.isfile(os.path.join(path, MANIFEST))]
        if not folders:
            return Finding(name, None, 'no checkpoint of a training was named')
        for folder in folders:
            if reason := what_is_missing(folder, only_model=True):
                return Finding(name, False, f'{folder}: {reason}')
        return Finding(name, True, ', '.join(folders))

    def _prompts(self) -> Finding:
        """The ids that training shows before the last answer are the ids that inference prompts with."""
        name = 'training prompt = inference prompt'
        rows = self._rows()
        if not rows:
            return Finding(name, None, 'no data set was named (--dataset)')
        template = self._template
        compared = refused = 0
        for row in rows:
            if not row.messages or row.messages[-1].get('role') != 'assistant' or row.text:
                continue
            try:
                samples = template.encode(row)
                prompt = template.prompt(dataclasses.replace(row, messages=row.messages[:-1])).input_ids
            except RowError:
                refused += 1
                continue
            compared += 1
            ids = list(samples[0].input_ids)
            if ids[: len(prompt)] != list(prompt):
                at = next((i for i, (a, b) in enumerate(zip(ids, prompt, strict=False)) if a != b), min(len(ids), len(prompt)))
                return Finding(name, False, f'{row.source}: the ids differ from position {at} on')
            before = np.asarray(samples[0].labels)[: len(prompt)]
            if self.args.loss_scale == 'last_round' and (before != IGNORE_INDEX).any():
                return Finding(name, False, f'{row.source}: a part of the prompt is trained')
        return Finding(name, True if compared else None, f'{compared} rows compared, {refused} refused by the template')

    def _packing(self) -> Finding:
        """Packed samples give the logits that each gives alone."""
        from swift.core.types import Sample
        from swift.trainers import selfcheck

        vocabulary = len(self._loaded.tokenizer)
        ids = np.random.default_rng(0).integers(0, vocabulary, 80).tolist()
        samples = [Sample(ids[:48], [IGNORE_INDEX] * 48), Sample(ids[48:], [IGNORE_INDEX] * 32)]
        plan = selfcheck.plan(self._model, samples)
        return Finding('packed = alone', True, 'samples run flat' if plan.flat else f'padded rows are used: {plan.reason}')

    def _merge(self) -> Finding:
        """The merged model answers as base + adapter do."""
        from swift.tuners import is_adapter
        from swift.tuners.merging import compare, merge

        name = 'merged = base + adapter'
        if not is_adapter(self._model):
            return Finding(name, None, 'no adapter was named')
        try:
            if self.args.merged_model:
                other = self._load(dataclasses.replace(self.args, model=self.args.merged_model, adapters=[])).model
                return Finding(name, True, str(compare(self._model, other)))
            return Finding(name, True, str(merge(self._model)[1]))
        except CheckpointError as error:
            return Finding(name, False, str(error))

    # ---- what the checks need, made when first needed

    def _rows(self) -> list[Conversation]:
        from swift.dataset.load import load_dataset

        if not self.args.dataset:
            return []
        source = load_dataset(self.args, seed=self.args.data_seed, use_hf=self.args.use_hf, hub_token=self.args.hub_token).train
        if hasattr(source, '__getitem__'):
            return [source[index] for index in range(min(ROWS, len(source)))]
        return [row for row, _ in zip(source, range(ROWS), strict=False)]

    @cached_property
    def _template(self) -> Any:
        from swift.arguments import Facts, resolve
        from swift.pipelines.templates import template_for

        args = resolve(self.args, Facts(model_max_length=self._loaded.info.max_model_len))
        return template_for(self._loaded.processor, args, self._loaded.info)

    @cached_property
    def _loaded(self) -> Any:
        return self._load(self.args)

    @cached_property
    def _model(self) -> Any:
        """The model, with its adapters on."""
        from swift.tuners import load_adapter

        loaded = self._loaded
        model = load_adapter(loaded.model, list(loaded.info.adapters)) if loaded.info.adapters else loaded.model
        return model.eval()

    @staticmethod
    def _load(args: Any) -> Any:
        from swift.model.load import load_model

        return load_model(args)
