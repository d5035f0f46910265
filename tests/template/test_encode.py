"""Conversations to samples: ids, labels, weights, truncation; and inference prompts that begin the same way."""

import copy
import pickle

import pytest

from swift.arguments.template import TemplateArgs
from swift.core import log
from swift.core.errors import RowError, RowTooLong, SwiftError, TemplateError
from swift.core.types import IGNORE_INDEX, Conversation
from swift.core.types import Template as TemplateProtocol
from swift.template import get_template
from tests.template.cases import CONVERSATIONS, EOS, NAMES, SYSTEM, TOOLS, answer, calls, result, source, tools_of, user
from tests.template.tokenizers import byte_level, pieces, without_offsets

TWO = [user(0), answer(0), user(1), answer(1)]
TOKENIZERS = {'byte_level': byte_level, 'pieces': pieces, 'without_offsets': without_offsets}


def make(name='chatml', tokenizer=byte_level, **settings):
    return get_template(tokenizer(source(name)), **settings)


def trained(template, sample) -> list[str]:
    """The runs of labelled tokens, as text."""
    runs, current = [], []
    for token, label in zip([*sample.input_ids, None], [*sample.labels, IGNORE_INDEX], strict=True):
        if label != IGNORE_INDEX:
            assert label == token
            current.append(token)
        elif current:
            runs.append(template.tokenizer.decode(current, clean_up_tokenization_spaces=False))
            current = []
    return runs


def encode(template, messages, **more):
    [sample] = template.encode(Conversation(messages, **more))
    assert len(sample.input_ids) == len(sample.labels)
    return sample


def whole(template, sample) -> str:
    return template.tokenizer.decode(sample.input_ids, clean_up_tokenization_spaces=False)


# ---- which tokens are trained


def test_it_is_the_template_of_the_protocol():
    assert isinstance(make(), TemplateProtocol)


@pytest.mark.parametrize('kind', TOKENIZERS)
def test_labels_are_the_answers_with_their_end(kind):
    template = make(tokenizer=TOKENIZERS[kind])
    sample = encode(template, TWO)
    assert [t.replace('\u2581', ' ') for t in trained(template, sample)] == [
        'SAY0 it is this. DONE0<|im_end|>',
        'SAY1 it is this. DONE1<|im_end|>',
    ]
    assert sample.weights is None


@pytest.mark.parametrize('kind', TOKENIZERS)
@pytest.mark.parametrize('name', NAMES)
def test_inference_prompt_is_the_start_of_the_training_sample(name, kind):
    template = make(name, TOKENIZERS[kind])
    compared = 0
    for key, messages in CONVERSATIONS.items():
        row = Conversation(messages, tools=tools_of(key))
        try:
            [sample] = get_template(template.tokenizer, loss_scale='last_round').encode(row)
            prompt = template.prompt(Conversation(messages[:-1], tools=tools_of(key)))
        except SwiftError:
            continue
        first = next(i for i, label in enumerate(sample.labels) if label != IGNORE_INDEX)
        last_round = [i for i, m in enumerate(messages) if m['role'] == 'user'][-1]
        if last_round == len(messages) - 2 and name not in ('brackets',):
            assert sample.input_ids[:first] == prompt.input_ids, key
            compared += 1
    assert compared >= 8 or name == 'brackets'


@pytest.mark.parametrize('name', NAMES)
def test_training_text_is_what_transformers_renders(name):
    tokenizer = byte_level(source(name))
    for key in ('one', 'three', 'reasoning'):
        rendered = tokenizer.apply_chat_template(CONVERSATIONS[key], tokenize=False)
        text = get_template(tokenizer).apply_chat_template(CONVERSATIONS[key])
        assert text == rendered
        if name not in ('roles', 'opened'):  # these get a stop token, and an empty thought
            ids = get_template(tokenizer).encode(Conversation(CONVERSATIONS[key]))[0].input_ids
            assert ids == tokenizer(rendered, add_special_tokens=False)['input_ids']
            assert tokenizer.decode(ids) == rendered


@pytest.mark.parametrize('name', NAMES)
def test_the_last_answer_ends_with_a_stop_token(name):
    template = make(name)
    sample = encode(template, TWO)
    last = [label for label in sample.labels if label != IGNORE_INDEX][-1]
    assert last in template.stop_token_ids
    assert last in template.prompt(Conversation(TWO[:1])).stop_token_ids


def test_a_stop_token_is_appended_where_the_template_prints_none(caplog):
    template = make('roles')
    sample = encode(template, TWO)
    assert trained(template, sample) == ['SAY0 it is this. DONE0', 'SAY1 it is this. DONE1</s>']
    user_id = template.tokenizer.convert_tokens_to_ids('<|user|>')
    stopping = get_template(template.tokenizer, stop_token_ids=[user_id])  # the model's own end is the next role
    assert trained(stopping, encode(stopping, TWO)) == [
        'SAY0 it is this. DONE0<|user|>',
        'SAY1 it is this. DONE1<|user|>',
    ]
    assert user_id in stopping.stop_token_ids


def test_bos_is_never_doubled():
    tokenizer = byte_level(source('headers'), bos=True)
    template = get_template(tokenizer)
    sample = encode(template, TWO)
    assert (
        sample.input_ids.count(tokenizer.bos_token_id) == 1 == template.prompt(Conversation(TWO[:1])).input_ids.count(1)
    )
    plain = get_template(tokenizer, use_chat_template=False)
    for text in ('some text', '<s>some text'):
        assert (
            plain.encode(Conversation([{'role': 'assistant', 'content': text}], text=True))[0].input_ids.count(1) == 1
        )


def test_an_answer_that_merges_with_the_header_gets_the_prompt_of_inference():
    """`\\n` of the header and `\\n\\n` of the answer could become one token: the prompt must not change."""
    for make_tokenizer in TOKENIZERS.values():
        template = make('chatml', make_tokenizer)
        messages = [user(0), {'role': 'assistant', 'content': '\n\nhi'}]
        sample = encode(template, messages)
        prompt = template.prompt(Conversation(messages[:1])).input_ids
        assert sample.input_ids[: len(prompt)] == prompt
        assert sample.labels[len(prompt)] == sample.input_ids[len(prompt)] and set(sample.labels[: len(prompt)]) == {
            IGNORE_INDEX
        }


# ---- batches


def test_a_batch_is_its_rows_one_by_one():
    template = make('thinking')
    rows = [Conversation(m, tools=tools_of(k), source=f'f:{i}') for i, (k, m) in enumerate(CONVERSATIONS.items())]
    rows.append(Conversation([user(0)], source='bad:1'))
    together = template.encode_batch(rows * 2)
    for row, found in zip(rows * 2, together, strict=True):
        try:
            assert found == make('thinking').encode(row)
        except RowError as e:
            assert isinstance(found, RowError) and str(found) == str(e) and row.source in str(found)


def test_a_bad_row_is_its_error_with_its_place():
    template = make('alternate')
    good, bad = template.encode_batch(
        [Conversation(TWO), Conversation([user(0), user(1), answer(1)], source='d.jsonl:7')]
    )
    assert len(good) == 1
    assert str(bad) == 'd.jsonl:7: the chat template refuses this conversation: user and assistant have to alternate'
    with pytest.raises(RowError, match='d.jsonl:7'):
        template.encode(Conversation([user(0), user(1), answer(1)], source='d.jsonl:7'))


def test_the_cache_of_words_gives_the_ids_of_the_whole_text():
    template = make()
    tokens = template._tokens
    assert tokens._chunks is not None and tokens._chunks.trusted
    hard = [
        "it's  a\n b",
        ' x',
        'x ',
        '  ',
        '\n\n \t x',
        'a\u00a0b c\u3000d',
        '你好 世界 é',
        'x<|im_end|> y <|im_start|>z',
        'a  b   c\r\n d',
        '<',
        '< |im_end|>',
    ]
    for text in hard * 3:
        assert tokens._chunks.ids(text) == template.tokenizer(text, add_special_tokens=False)['input_ids'], text
    assert tokens._chunks.trusted
    assert make(tokenizer=pieces)._tokens._chunks is None  # words depend on their neighbours there


def test_truncation_left_in_the_tokenizer_by_others_has_no_effect():
    template = make()
    before = encode(template, TWO).input_ids
    template.tokenizer(['x y z'] * 2, truncation=True, max_length=2, padding='max_length')
    assert encode(template, TWO).input_ids == before
    assert len(template.prompt(Conversation(TWO[:1])).input_ids) > 2


def test_pickled_and_back_it_encodes_the_same():
    template = make('thinking', max_length=300, loss_scale='last_round')
    encode(template, TWO)
    again = pickle.loads(pickle.dumps(template))
    assert again.encode(Conversation(TWO)) == template.encode(Conversation(TWO))
    assert again.fingerprint == template.fingerprint


def test_the_fingerprint_changes_with_what_changes_tokens(tmp_path):
    base = make().fingerprint
    assert base == make().fingerprint
    others = [make('headers'), make(system='x'), make(max_length=9), make(loss_scale='all'), make(tokenizer=pieces)]
    assert len({base, *(t.fingerprint for t in others)}) == 6


def test_messages_are_not_changed():
    messages = [SYSTEM, user(0), calls('a', content='x'), result(0), answer(1, reasoning_content='r')]
    row = Conversation(copy.deepcopy(messages), tools=copy.deepcopy(TOOLS))
    make('thinking', system='S', agent_template='hermes', response_prefix='P').encode_batch([row])
    assert row.messages == messages and row.tools == TOOLS


# ---- which turns, and how much


def test_parts_that_are_texts_alone_are_one_text():
    parts = [{'type': 'text', 'text': '1 + '}, {'type': 'text', 'text': '1'}]
    one, other = (
        encode(make(), [{'role': 'user', 'content': said}, {'role': 'assistant', 'content': '2'}]) for said in ('1 + 1', parts)
    )
    assert one.input_ids == other.input_ids and '1 + 1' in whole(make(), one)


def test_loss_scale_names():
    assert len(trained(make(), encode(make(loss_scale='default'), TWO))) == 2
    assert trained(make(), encode(make(loss_scale='last_round'), TWO)) == ['SAY1 it is this. DONE1<|im_end|>']
    everything = encode(make(loss_scale='all'), TWO)
    assert everything.labels == everything.input_ids


def test_the_last_round_has_the_calls_of_that_round():
    template = make('thinking', loss_scale='last_round')
    messages = [user(0), answer(0), user(1), calls('CITY0'), result(0), answer(1)]
    found = trained(template, encode(template, messages, tools=TOOLS))
    assert len(found) == 2 and 'CITY0' in found[0] and 'SAY1' in found[1]


def test_loss_of_a_message_decides():
    template = make()
    messages = [user(0), answer(0, loss=False), user(1), answer(1), user(2), answer(2, loss=0.5)]
    sample = encode(template, messages)
    assert [t[:4] for t in trained(template, sample)] == ['SAY1', 'SAY2']
    labelled = [w for w, label in zip(sample.weights, sample.labels, strict=True) if label != IGNORE_INDEX]
    assert set(labelled) == {1.0, 0.5} and labelled[-1] == 0.5 and labelled[0] == 1.0
    assert all(w == 0 for w, label in zip(sample.weights, sample.labels, strict=True) if label == IGNORE_INDEX)
    messages = [user(0), answer(0, loss=True), user(1), answer(1)]
    assert len(trained(template, encode(make(loss_scale='last_round'), messages))) == 2


def test_a_message_that_is_not_the_assistants_cannot_be_trained():
    with pytest.raises(RowError, match=r'message 0 \(user\)'):
        make().encode(Conversation([{**user(0), 'loss': True}, answer(0)]))
    with pytest.raises(RowError, match='negative'):
        make().encode(Conversation([user(0), answer(0, loss=-1.0)]))


def test_empty_thoughts_are_ignored_if_asked():
    messages = [user(0), answer(0)]
    template = make('thinking')
    assert trained(template, encode(template, messages)) == ['<think>\n\n</think>\n\nSAY0 it is this. DONE0<|im_end|>']
    sample = encode(make('thinking', loss_scale='default+ignore_empty_think'), messages)
    assert trained(template, sample) == ['SAY0 it is this. DONE0<|im_end|>'] and sample.weights is None
    full = [user(0), answer(0, reasoning_content='WHY')]
    sample = encode(make('thinking', loss_scale='ignore_empty_think'), full)
    assert trained(template, sample)[0].startswith('<think>\nWHY')


@pytest.mark.parametrize('kind', TOKENIZERS)
def test_weighted_patterns_from_a_file(tmp_path, kind):
    path = tmp_path / 'mine.json'
    path.write_text('{"it is": [3.0], "DONE\\\\d": [2.0, 0.5]}')
    template = make(tokenizer=TOKENIZERS[kind], loss_scale=f'last_round+{path}')
    sample = encode(template, TWO)
    rows = list(zip(sample.input_ids, sample.labels, sample.weights, strict=True))
    by_weight = {w: template.tokenizer.decode([i for i, _, x in rows if x == w]) for w in {r[2] for r in rows}}
    assert set(by_weight) == {0.0, 0.5, 1.0, 2.0, 3.0}
    assert (
        by_weight[3.0].split() == ['it', 'is'] and by_weight[0.5] == '<|im_end|>' and by_weight[2.0].strip() == 'DONE1'
    )
    assert all((label == IGNORE_INDEX) == (weight == 0) for _, label, weight in rows)


def test_wrong_loss_scales_are_named(tmp_path):
    for wrong, says in (
        ('last_rond', "did you mean 'last_round'"),
        ('default+all', 'exclude each other'),
        (str(tmp_path / 'none.json'), 'no such file'),
    ):
        with pytest.raises(TemplateError, match=says):
            make(loss_scale=wrong)
    (tmp_path / 'bad.json').write_text('{"(": [1.0]}')
    with pytest.raises(TemplateError, match='no regular expression'):
        make(loss_scale=str(tmp_path / 'bad.json'))


# ---- length


def test_long_rows_are_left_out_by_default():
    size = len(encode(make(), TWO))
    assert len(encode(make(max_length=size), TWO)) == size
    with pytest.raises(RowTooLong, match=f'{size} tokens, more than max_length {size - 1}'):
        make(max_length=size - 1).encode(Conversation(TWO))


def test_long_rows_are_cut():
    full = encode(make(), TWO)
    left = encode(make(max_length=20, truncation_strategy='left'), TWO)
    assert left.input_ids == full.input_ids[-20:] and left.labels == full.labels[-20:]
    right = encode(make(max_length=len(full) - 5, truncation_strategy='right'), TWO)
    assert right.input_ids == full.input_ids[:-5]
    with pytest.raises(RowError, match='no trained token is left within max_length 10'):
        make(max_length=10, truncation_strategy='right').encode(Conversation(TWO))


def test_split_is_for_plain_text():
    text = Conversation([{'role': 'assistant', 'content': 'it is this, what is it? ' * 20}], text=True)
    template = make(max_length=16, truncation_strategy='split', use_chat_template=False)
    samples = template.encode(text)
    assert len(samples) > 3 and all(len(s) <= 16 for s in samples) and all(s.labels == s.input_ids for s in samples)
    joined = [i for s in samples for i in s.input_ids]
    assert joined == make(use_chat_template=False).encode(text)[0].input_ids
    with pytest.raises(RowError, match='split is for plain-text pre-training only'):
        make(max_length=16, truncation_strategy='split').encode(Conversation(TWO))


# ---- plain text


def test_plain_text_is_trained_whole_and_ends():
    tokenizer = byte_level(source('chatml'), bos=True)
    template = get_template(tokenizer)
    [sample] = template.encode(
        Conversation([{'role': 'assistant', 'content': 'it is this'}], text=True, channel='c', source='f:1')
    )
    assert template.tokenizer.decode(sample.input_ids) == '<s>it is this</s>'
    assert sample.labels == sample.input_ids and (sample.channel, sample.source) == ('c', 'f:1')
    with pytest.raises(RowError, match='empty'):
        template.encode(Conversation([{'role': 'assistant', 'content': ' \n'}], text=True))


def test_without_chat_template_answers_are_trained():
    template = make(use_chat_template=False)
    sample = encode(template, [user(0), answer(0)])
    assert whole(template, sample) == 'ASK0 what is it? END0SAY0 it is this. DONE0</s>'
    assert trained(template, sample) == ['SAY0 it is this. DONE0</s>']
    prompt = template.prompt(Conversation([user(0)]))
    assert prompt.input_ids == sample.input_ids[: len(prompt.input_ids)]
    everything = encode(make(use_chat_template=False, loss_scale='all'), [user(0), answer(0)])
    assert everything.labels == everything.input_ids


def test_no_chat_template_is_said():
    with pytest.raises(TemplateError, match='--template chatml'):
        get_template(byte_level())
    assert get_template(byte_level(), use_chat_template=False).chat_template is None
    assert get_template(byte_level(), template='chatml').chat_template


# ---- settings


def test_system_is_for_rows_without_one(tmp_path):
    template = make(system='MINE')
    assert 'MINE' in whole(template, encode(template, TWO)) and 'You are a test' not in whole(
        template, encode(template, TWO)
    )
    text = whole(template, encode(template, [SYSTEM, *TWO]))
    assert 'MINE' not in text and 'SYS be brief' in text
    (tmp_path / 's.txt').write_text('from a file\n')
    assert '\nfrom a file<|im_end|>' in make(system=str(tmp_path / 's.txt')).apply_chat_template(TWO)
    with pytest.raises(TemplateError, match='no such file'):
        make(system='none.txt')


def test_a_template_without_system_gets_it_in_the_first_question():
    template = make('alternate')
    text = whole(template, encode(template, [SYSTEM, *TWO]))
    assert text.startswith('<s><turn:user>\nSYS be brief SYSEND\n\nASK0')


def test_thinking_switch():
    on, off = make('thinking', enable_thinking=True), make('thinking', enable_thinking=False)
    assert on.prompt(Conversation(TWO[:1])).text.endswith('<|im_start|>assistant\n')
    assert off.prompt(Conversation(TWO[:1])).text.endswith('<think>\n\n</think>\n\n')
    assert trained(off, encode(off, TWO[:2])) == ['SAY0 it is this. DONE0<|im_end|>']


def test_a_switch_that_the_template_does_not_read_is_said(monkeypatch):
    said = []
    monkeypatch.setattr('swift.template.build.warn_once', lambda *a: said.append(a[0] % a[1:]))
    make(enable_thinking=False)
    make('thinking', enable_thinking=False)
    assert said == ['--enable_thinking has no effect: the chat template does not read it.']


def test_response_prefix_is_part_of_the_prompt():
    template = make(response_prefix='Well: ')
    prompt = template.prompt(Conversation(TWO[:1]))
    assert prompt.text.endswith('<|im_start|>assistant\nWell: ')
    sample = encode(template, TWO[:2])
    assert trained(template, sample) == ['SAY0 it is this. DONE0<|im_end|>'] and 'Well: SAY0' in whole(template, sample)
    assert encode(template, [user(0), {'role': 'assistant', 'content': 'Well: SAY0'}]).input_ids.count(1) == 0


def test_answers_get_the_empty_thought_that_the_prompt_can_have():
    jinja = source('chatml').replace(
        "{{ '<|im_start|>assistant\\n' }}",
        "{{ '<|im_start|>assistant\\n' }}{%- if enable_thinking is false -%}{{ '<think>\\n\\n</think>\\n\\n' }}{%- endif -%}",
    )
    tokenizer = byte_level(jinja)
    template = get_template(tokenizer)
    assert trained(template, encode(template, TWO)) == [
        'SAY0 it is this. DONE0<|im_end|>',
        '<think>\n\n</think>\n\nSAY1 it is this. DONE1<|im_end|>',
    ]
    plain = get_template(tokenizer, add_non_thinking_prefix=False)
    assert trained(plain, encode(plain, TWO))[1] == 'SAY1 it is this. DONE1<|im_end|>'
    off = get_template(tokenizer, enable_thinking=False)
    sample = encode(off, TWO)
    prompt = off.prompt(Conversation(TWO[:3])).input_ids
    assert sample.input_ids[: len(prompt)] == prompt and trained(off, sample)[-1] == 'SAY1 it is this. DONE1<|im_end|>'


def test_a_template_file_wins_over_the_tokenizer(tmp_path):
    path = tmp_path / 'mine.jinja'
    path.write_text(source('headers'))
    template = get_template(byte_level(source('chatml')), TemplateArgs(template=str(path)))
    assert template.apply_chat_template(TWO).startswith('<s><|head|>user')
    with pytest.raises(TemplateError, match='no such file'):
        get_template(byte_level(), template='nothing.jinja')


def test_unknown_settings_and_names_suggest():
    with pytest.raises(TemplateError, match="did you mean 'max_length'"):
        make(max_lenght=3)
    with pytest.raises(SwiftError, match='qwen3'):
        make(template='qwen33')
    with pytest.raises(SwiftError, match='hermes'):
        make(agent_template='hermess')


def test_two_templates_of_one_tokenizer():
    tokenizer = copy.copy(byte_level())
    tokenizer.chat_template = {'default': source('chatml'), 'tool_use': source('thinking')}
    template = get_template(tokenizer)
    assert 'You are a test' in whole(template, encode(template, TWO))
    assert '# Tools' in whole(template, encode(template, TWO, tools=TOOLS))


# ---- what a template can't do


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(log, '_once', set())
    monkeypatch.setattr(log.get_logger(), 'warning', lambda text, *a: said.append(text % a if a else text))
    return said


def test_limits_are_said_once(warnings):
    template = make('thinking')
    for _ in range(3):
        encode(template, CONVERSATIONS['thoughts'])
    assert len(warnings) == 1 and 'rewrites earlier turns' in warnings[0] and 'last_round' in warnings[0]
    warnings.clear()
    encode(make('chatml'), CONVERSATIONS['reasoning'])
    assert len(warnings) == 1 and 'drops reasoning_content' in warnings[0]
    warnings.clear()
    encode(make('opened'), TWO)
    assert len(warnings) == 1 and 'do not continue its generation prompt' in warnings[0]
    warnings.clear()
    encode(make('roles'), TWO)
    assert len(warnings) == 1 and "'</s>' is appended" in warnings[0]
    warnings.clear()
    encode(make('headers'), TWO)
    assert warnings == []


def test_tools_that_a_template_ignores_are_refused():
    for messages, tools in ((TWO, TOOLS), (CONVERSATIONS['tools'], None)):
        with pytest.raises(RowError, match='--agent_template hermes'):
            make('chatml').encode(Conversation(messages, tools=tools))


def test_tools_as_text():
    template = make('chatml', agent_template='hermes')
    messages = [SYSTEM, user(0), calls('CITY0', 'CITY1', content='let me see'), result(0), result(1), answer(1)]
    sample = encode(template, messages, tools=TOOLS)
    text = whole(template, sample)
    assert 'DEFINED' in text.split('<|im_start|>user')[0] and 'SYS be brief' in text
    first, second = trained(template, sample)
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "%s"}}\n</tool_call>'
    assert first == f'let me see\n{call % "CITY0"}\n{call % "CITY1"}<|im_end|>'
    assert second == 'SAY1 it is this. DONE1<|im_end|>'
    assert text.count('<|im_start|>user') == 2 and '<tool_response>\nGOT1 sunny\n</tool_response>' in text


def test_tools_and_arguments_may_be_json_strings():
    template = make('thinking')
    written = calls('CITY0')
    written['tool_calls'][0]['function']['arguments'] = '{"city": "CITY0"}'
    import json

    messages = [user(0), written, result(0), answer(1)]
    same = [user(0), calls('CITY0'), result(0), answer(1)]
    assert encode(template, messages, tools=json.dumps(TOOLS)) == encode(template, same, tools=TOOLS)
    bare = [t['function'] for t in TOOLS]
    assert encode(template, same, tools=bare) == encode(template, same, tools=TOOLS)
    with pytest.raises(RowError, match='not JSON'):
        template.encode(Conversation(same, tools='{'))


def test_arguments_as_text_for_templates_that_add_strings():
    jinja = source('brackets').replace('call.function.arguments} | tojson', "(call.function.arguments + '')} | tojson")
    template = get_template(byte_level(jinja))
    sample = encode(template, [user(0), calls('CITY0'), result(0), answer(1)], tools=TOOLS)
    assert '{\\"city\\": \\"CITY0\\"}' in trained(template, sample)[0]


# ---- prompts


def test_a_last_answer_is_continued():
    template = make()
    full = encode(template, TWO)
    prompt = template.prompt(Conversation(TWO))
    assert prompt.text.endswith('<|im_start|>assistant\nSAY1 it is this. DONE1')
    assert prompt.input_ids == full.input_ids[: len(prompt.input_ids)]
    spaced = [user(0), {'role': 'assistant', 'content': 'It is '}]
    assert template.prompt(Conversation(spaced)).text.endswith('assistant\nIt is ')
    empty = [user(0), {'role': 'assistant', 'content': ''}]
    assert template.prompt(Conversation(empty)).text == template.prompt(Conversation([user(0)])).text


def test_a_prompt_after_a_tool_result():
    prompt = make('thinking').prompt(Conversation([user(0), calls('CITY0'), result(0)], tools=TOOLS))
    assert prompt.text.endswith('</tool_response><|im_end|>\n<|im_start|>assistant\n')


def test_ends_that_are_no_single_token_are_strings():
    template = get_template(
        byte_level(
            '{% for m in messages %}{{ m.role + ": " + m.content + "[[end]]\n" }}{% endfor %}{% if add_generation_prompt %}{{ "assistant: " }}{% endif %}'
        )
    )
    sample = encode(template, TWO)
    assert trained(template, sample)[-1].startswith('SAY1')
    assert template.tokenizer.eos_token == EOS and template.tokenizer.eos_token_id in template.stop_token_ids


def test_generation_config_stops(tmp_path):
    import json
    from types import SimpleNamespace

    from swift.template import update_generation_config_eos_token

    byte_level(source('chatml')).save_pretrained(tmp_path)
    (tmp_path / 'generation_config.json').write_text(json.dumps({'eos_token_id': [7, 2]}))
    from transformers import AutoTokenizer

    template = get_template(AutoTokenizer.from_pretrained(tmp_path))
    end = template.tokenizer.convert_tokens_to_ids('<|im_end|>')
    assert set(template.stop_token_ids) == {2, 7, end}
    config = SimpleNamespace(eos_token_id=2)
    update_generation_config_eos_token(config, template)
    assert config.eos_token_id == [2, 7, end]
