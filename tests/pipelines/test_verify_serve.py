"""What a server shows its model is what training showed it: compared over HTTP, for every shape of conversation."""

import pytest
import torch

from swift.core.errors import SwiftError
from swift.infer_engine import TransformersEngine
from swift.pipelines.train import sft_main
from swift.pipelines.verify import verify_main
from swift.pipelines.verify_serve import SHAPES, compare_adapters, compare_served
from swift.template import get_template

ROWS = 'examples/data/tools.jsonl'


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv('SWIFT_CACHE', str(tmp_path / 'cache'))


@pytest.fixture(scope='module')
def engine():
    return TransformersEngine('tiny')


def test_a_checkpoint_is_served_as_it_was_trained(tmp_path, capsys):
    run = sft_main(dict(model='tiny', dataset=ROWS, max_steps=1, system='Be brief.', output_dir=str(tmp_path), report_to='none'))
    found = verify_main(dict(adapters=run['last_model_checkpoint'], serve=True))
    served = found['served ids = training ids']
    assert served['ok'] and f'{len(SHAPES)} shapes' in served['detail'] and ' 0 refused' in served['detail']
    assert found['served adapter = its file']['detail'].startswith('56 tensors of 1 adapter are')


def test_another_system_prompt_is_found(engine):
    other = get_template(engine.tokenizer, system='You are another one.')
    same, words = compare_served([], other, engine)
    assert same is False and words.startswith('a question: the ids that the server makes differ from position')
    assert compare_served([], engine.template, engine)[0] is True


@pytest.mark.parametrize(('family', 'kind'), [('qwen2_vl', 'image'), ('qwen2_vl', 'video'), ('qwen2_audio', 'audio')])
def test_what_rows_show_reaches_the_model_as_in_training(family, kind, tmp_path_factory):
    from tests.helpers.shown import model_dir, root, talk

    root(tmp_path_factory)
    rows = [talk(f'<{kind}>What is it? ', 'This.', f'And <{kind}>that?', 'That.', **{f'{kind}s': [n, n + 1]}) for n in range(2)]
    seeing = TransformersEngine(model_dir(family))
    same, words = compare_served(rows, seeing.template, seeing)
    assert same is True and words.startswith(f'{len(SHAPES) + 2 - int(words.split(", ")[2].split()[0])} conversations')
    less = TransformersEngine(model_dir(family), **{'max_pixels': 28 * 28, 'video_max_pixels': 28 * 28} if kind != 'audio' else {'system': 'Hear.'})
    assert compare_served(rows, less.template, seeing)[0] is False


def test_a_tensor_that_was_lost_or_changed_is_found(tmp_path):
    run = sft_main(dict(model='tiny', dataset=ROWS, max_steps=1, output_dir=str(tmp_path), report_to='none'))
    path = run['last_model_checkpoint']
    engine = TransformersEngine('tiny', adapters=[path])
    assert compare_adapters([path], engine)[0] is True
    weight = next(p for name, p in engine.model.named_parameters() if 'lora_A' in name)
    with torch.no_grad():
        weight[0, 0] += 1
    same, words = compare_adapters([path], engine)
    assert same is False and 'is another one in the served model' in words


def test_a_failed_check_ends_the_command(monkeypatch):
    monkeypatch.setattr('swift.pipelines.verify_serve.compare_served', lambda *_: (False, 'they differ'))
    with pytest.raises(SwiftError, match='served ids = training ids: they differ'):
        verify_main(dict(model='tiny', dataset='examples/data/chat.jsonl#4', serve=True))
