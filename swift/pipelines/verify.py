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
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import numpy as np

from swift.arguments.methods import method_of
from swift.core.errors import CheckpointError, RowError, SwiftError
from swift.core.types import IGNORE_INDEX, Conversation, Prompt, Sample
from swift.pipelines.base import SwiftPipeline
from swift.pipelines.scoring import SCORING
from swift.pipelines.segments import PAIRS, text_samples
from swift.pipelines.verify_media import Saw, compared_with_processor, lacks_processor, samples_of
from swift.template.runs import media_kinds

ROWS = 64
"""Rows whose prompts are compared."""


HEAD = ('num_labels', 'class_names', 'problem_type', 'pooling')
"""What a checkpoint says about its own outputs where the arguments don't."""


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
        checks: list[Callable[[], Finding | None]] = [self._checkpoint, self._prompts, self._processor, self._packing, self._merge]
        if self.args.serve:
            checks += [self._server, self._whole_adapters]
        findings = []
        for check in checks:
            finding = check()
            if finding is None:
                continue
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
        from swift.model.load import model_info
        from swift.trainers.resume import MANIFEST, what_is_missing

        name = 'checkpoint complete'
        folders = [path for path in [*self.args.adapters, self.args.model] if path and os.path.isfile(os.path.join(path, MANIFEST))]
        if not folders:
            return Finding(name, None, 'no checkpoint of a training was named')
        for folder in folders:
            if reason := what_is_missing(folder, only_model=True):
                return Finding(name, False, f'{folder}: {reason}')
            if reason := lacks_processor(folder, model_info(self.args).is_multimodal):
                return Finding(name, False, f'{folder}: {reason}')
        return Finding(name, True, ', '.join(folders))

    def _prompts(self) -> Finding:
        """The ids that training shows before the last answer are the ids that inference prompts with."""
        name = 'training prompt = inference prompt'
        rows = self._rows
        if not rows:
            return Finding(name, None, 'no data set was named (--dataset)')
        if self._method in (*SCORING, 'rm'):
            return self._texts(rows)
        compared = refused = 0
        for row in rows:
            for what, talk in answers_of(row):
                try:
                    mistake = self._prompt_mistake(talk)
                except RowError:
                    refused += 1
                    continue
                compared += 1
                if mistake:
                    return Finding(name, False, f'{row.source}{what}: {mistake}')
        kind = 'answers' if self._method in PAIRS else 'rows'
        return Finding(name, True if compared else None, f'{compared} {kind} compared, {refused} refused by the template')

    def _prompt_mistake(self, row: Conversation) -> str | None:
        """What differs between the prompt that is trained on and the one that inference makes; None: nothing. Raises RowError."""
        sample = self._template.encode(row)[0]
        prompt = list(self._prompt_of(row).input_ids)
        ids = list(sample.input_ids)
        if ids[: len(prompt)] != prompt:
            at = next((i for i, (a, b) in enumerate(zip(ids, prompt, strict=False)) if a != b), min(len(ids), len(prompt)))
            return f'the ids differ from position {at} on'
        before = np.asarray(sample.labels)[: len(prompt)]
        if self.args.loss_scale == 'last_round' and (before != IGNORE_INDEX).any():
            return 'a part of the prompt is trained'
        return None

    def _prompt_of(self, row: Conversation) -> Prompt:
        """The inference prompt of a row: without its last answer."""
        answered = bool(row.messages) and row.messages[-1].get('role') == 'assistant' and not row.text
        return self._template.prompt(dataclasses.replace(row, messages=row.messages[:-1]) if answered else row)

    def _processor(self) -> Finding | None:
        """Our tokens of rows that show something are those of the model's own processor. None: the model reads text only."""
        if not media_kinds(self._template):
            return None
        return Finding('our ids = the processor\'s', *compared_with_processor(self._rows, self._template, self._prompt_of))

    def _texts(self, rows: list[Conversation]) -> Finding:
        """For models that give numbers: the ids of a row in training are those that swift infer scores."""
        from swift.objectives import get_objective
        from swift.pipelines.scoring import encoder_for, method_args

        name = 'training ids = inference ids'
        settled = method_args(self.args, self._model, self._loaded.info)
        args = SimpleNamespace(**{**vars(self.args), **{key: value for key, value in vars(settled).items() if key in HEAD}})
        objective = get_objective(self._method, args)
        asked = encoder_for(self._method, objective, self._template)(rows)
        compared = refused = 0
        for row, trained, scored in zip(rows, objective.encode_batch(rows, self._template), asked, strict=True):
            if isinstance(trained, RowError) or isinstance(scored, RowError):
                refused += 1
                continue
            compared += 1
            theirs = _segments(scored)
            for sample in trained:
                missing = [number for number, ids in enumerate(_segments(sample)) if ids not in theirs]
                if missing:
                    return Finding(name, False, f'{row.source}: text {missing[0] + 1} of the sample is not what swift infer encodes')
        return Finding(name, True if compared else None, f'{compared} rows compared, {refused} refused')

    def _packing(self) -> Finding:
        """Packed samples give the logits that each gives alone."""
        from swift.trainers import selfcheck

        shown = samples_of(self._rows, self._template) if media_kinds(self._template) else []
        plan = selfcheck.plan(self._model, [*shown, *text_samples(self._loaded.tokenizer)])
        what = f', tried on {len(shown)} rows with media' if shown else ''
        return Finding('packed = alone', True, ('samples run flat' if plan.flat else f'padded rows are used: {plan.reason}') + what)

    def _merge(self) -> Finding:
        """The merged model answers as base + adapter do."""
        from swift.tuners import is_adapter
        from swift.tuners.merging import compare, merge

        name = 'merged = base + adapter'
        if not is_adapter(self._model):
            return Finding(name, None, 'no adapter was named')
        saw = Saw(self._model, self._rows, self._template, self._prompt_of)
        try:
            if self.args.merged_model:
                other = self._load(dataclasses.replace(self.args, model=self.args.merged_model, adapters=[])).model
                report = compare(self._model, other)
            else:
                other, report = merge(self._model)
        except CheckpointError as error:
            return Finding(name, False, str(error))
        same, words = saw.compare(other)
        return Finding(name, same is not False, f'{report}; {words}' if words else str(report))

    def _server(self) -> Finding:
        """The ids that a server's requests come to are those of training."""
        from swift.pipelines.verify_serve import compare_served

        name = 'served ids = training ids'
        if self._serving is None:
            return Finding(name, None, 'the model gives numbers, not text')
        return Finding(name, *compare_served(self._rows, self._template, self._serving))

    def _whole_adapters(self) -> Finding:
        """Nothing of an adapter's file is missing in the model that is served."""
        from swift.pipelines.verify_serve import compare_adapters

        name = 'served adapter = its file'
        return Finding(name, None, 'the model gives numbers, not text') if self._serving is None else Finding(name, *compare_adapters(self.args.adapters, self._serving))

    # ---- what the checks need, made when first needed

    @cached_property
    def _serving(self) -> Any:
        from swift.pipelines.verify_serve import serving_engine

        return serving_engine(self.args)

    @property
    def _method(self) -> str:
        return method_of(self.command, vars(self.args))

    @cached_property
    def _rows(self) -> list[Conversation]:
        from swift.dataset.load import load_dataset

        if not self.args.dataset:
            return []
        source = load_dataset(self.args, seed=self.args.data_seed, use_hf=self.args.use_hf, hub_token=self.args.hub_token, root_image_dir=self.args.root_image_dir).train
        if hasattr(source, '__getitem__'):
            return [source[index] for index in range(min(ROWS, len(source)))]
        return [row for row, _ in zip(source, range(ROWS), strict=False)]

    @cached_property
    def _template(self) -> Any:
        from swift.arguments import Facts, resolve
        from swift.pipelines.templates import template_for

        args = resolve(self.args, Facts(model_max_length=self._loaded.info.max_model_len, multimodal=self._loaded.info.is_multimodal))
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


def answers_of(row: Conversation) -> list[tuple[str, Conversation]]:
    """(which one, the conversation) for every answer of a row that a prompt leads to; [] for rows without one."""
    if row.text:
        return []
    found = [('', row.messages)]
    if row.rejected:
        found = [(' (chosen)', row.messages), *((' (rejected)', said) for said in [row.rejected, *(row.negatives or [])])]
    talks = [(what, dataclasses.replace(row, messages=said, rejected=None, negatives=None)) for what, said in found]
    return [(what, talk) for what, talk in talks if talk.messages and talk.messages[-1].get('role') == 'assistant']


def _segments(sample: Sample) -> list[list[int]]:
    ends = list(accumulate(sample.segment_lengths))
    return [list(sample.input_ids[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
