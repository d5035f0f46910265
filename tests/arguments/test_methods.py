"""Which flags act on which training method; old spellings of preference flags."""

import pytest

from swift.arguments import parse_args
from swift.arguments.aliases import ENVIRONMENT
from swift.arguments.commands import CLASSES
from swift.arguments.flags import flags_of
from swift.arguments.methods import METHODS, SHARED
from swift.core.errors import ArgumentsError

BASE = ['--model', 'm', '--dataset', 'd']


def mistakes(command, words):
    with pytest.raises(ArgumentsError) as caught:
        parse_args(command, [*BASE, *words], quiet=True)
    return caught.value.mistakes


def test_the_table_names_real_flags():
    known = set().union(*(flags_of(cls) for cls in CLASSES.values()))
    for name, method in METHODS.items():
        assert method.flags | method.reads | set(method.defaults) <= known, name
        assert method.reads <= SHARED, name
    assert all(any(flag in method.reads for method in METHODS.values()) for flag in SHARED)
    assert set(ENVIRONMENT.values()) - {'use_flash_attn'} <= known


@pytest.mark.parametrize(
    'command, words, flag',
    [
        ('sft', ['--pooling', 'mean'], 'pooling'),
        ('pt', ['--positive_token', 'ja'], 'positive_token'),
        ('rlhf', ['--rlhf_type', 'orpo', '--ref_model', 'm'], 'ref_model'),
        ('rlhf', ['--rlhf_type', 'kto', '--simpo_gamma', '2'], 'simpo_gamma'),
        ('rlhf', ['--label_smoothing_factor', '0.1'], 'label_smoothing_factor'),
        ('rlhf', ['--enable_dft_loss', 'true'], 'enable_dft_loss'),
        ('rlhf', ['--z_loss_coef', '0.1'], 'z_loss_coef'),
        ('rlhf', ['--enable_channel_loss', 'true'], 'enable_channel_loss'),
        ('rlhf', ['--acc_strategy', 'seq'], 'acc_strategy'),
        ('rlhf', ['--rlhf_type', 'rm', '--predict_with_generate', 'true', '--val_dataset', 'v'], 'predict_with_generate'),
        ('rlhf', ['--rlhf_type', 'rm', '--loss_scale', 'all'], 'loss_scale'),
        ('sft', ['--task_type', 'seq_cls', '--loss_scale', 'all'], 'loss_scale'),
        ('sft', ['--task_type', 'embedding', '--label_smoothing_factor', '0.1'], 'label_smoothing_factor'),
        ('sft', ['--task_type', 'reranker', '--eval_metric', 'rouge', '--val_dataset', 'v'], 'eval_metric'),
        ('sft', ['--num_labels', '3'], 'num_labels'),
        ('rlhf', ['--rlhf_type', 'rm', '--num_labels', '3'], 'num_labels'),
        ('sft', ['--task_type', 'embedding', '--loss_type', 'cosent', '--infonce_temperature', '0.5'], 'infonce_temperature'),
        ('sft', ['--task_type', 'embedding', '--margin', '0.5'], 'margin'),
        ('sft', ['--task_type', 'embedding', '--infonce_fake_neg_margin', '0.5'], 'infonce_fake_neg_margin'),
        ('rlhf', ['--discopop_tau', '0.1'], 'discopop_tau'),
        ('rlhf', ['--f_alpha_divergence_coef', '0.1'], 'f_alpha_divergence_coef'),
        ('rlhf', ['--ref_model_sync_steps', '10'], 'ref_model_sync_steps'),
        ('rlhf', ['--reference_free', 'true', '--precompute_ref_log_probs', 'true'], 'precompute_ref_log_probs'),
        ('sft', ['--eval_metric', 'rouge', '--val_dataset', 'v'], 'eval_metric'),
        ('sft', ['--task_type', 'token_cls', '--loss_type', 'mine'], 'loss_type'),
        ('sft', ['--task_type', 'embedding', '--loss_type', 'cosent', '--loss_kwargs', '{"a": 1}'], 'loss_kwargs'),
        ('sft', ['--loss_type', 'mine', '--z_loss_coef', '0.1'], 'z_loss_coef'),
        ('sft', ['--infonce_use_batch', 'false'], 'infonce_use_batch'),
        ('sft', ['--task_type', 'embedding', '--loss_type', 'cosent', '--infonce_use_batch', 'false'], 'infonce_use_batch'),
        ('sft', ['--task_type', 'embedding', '--system', 's'], 'system'),
        ('sft', ['--task_type', 'embedding', '--response_prefix', 's', '--use_chat_template', 'true'], 'response_prefix'),
        ('sft', ['--task_type', 'token_cls', '--system', 's'], 'system'),
        ('sft', ['--task_type', 'token_cls', '--use_chat_template', 'true'], 'use_chat_template'),
        ('pt', ['--response_prefix', 's'], 'response_prefix'),
    ],
)
def test_a_flag_of_another_method_is_an_error(command, words, flag):
    found = mistakes(command, words)
    assert len(found) == 1 and found[0].startswith(f'--{flag} has no effect '), found


def test_the_error_names_the_methods_that_have_the_flag():
    assert mistakes('rlhf', ['--rlhf_type', 'orpo', '--cpo_alpha', '2']) == [
        '--cpo_alpha has no effect with --rlhf_type orpo; it belongs to cpo, simpo'
    ]


@pytest.mark.parametrize(
    'command, words, values',
    [
        ('rlhf', [], {'rlhf_type': 'dpo', 'beta': 0.1, 'loss_scale': 'last_round', 'loss_type': []}),
        ('rlhf', ['--rlhf_type', 'SimPO'], {'rlhf_type': 'simpo', 'beta': 2.0, 'cpo_alpha': 0.0}),
        ('rlhf', ['--rlhf_type', 'rm', '--num_labels', '1'], {'task_type': 'seq_cls', 'num_labels': 1}),
        ('rlhf', ['--dpo_loss_type', 'hinge'], {'loss_type': ['hinge']}),
        ('rlhf', ['--loss_type', 'sigmoid,sft', '--loss_weights', '0.9,0.1'], {'loss_type': ['sigmoid', 'sft'], 'loss_weights': [0.9, 0.1]}),
        ('rlhf', ['--loss_type', 'aot_pair'], {'loss_type': ['aot']}),
        ('rlhf', ['--ref_model_id_or_path', 'r', '--ref_model_type', 'qwen2'], {'ref_model': 'r', 'ref_model_type': 'qwen2'}),
        ('rlhf', ['--ref_model_type', 'qwen-7b-chat'], {'ref_model': 'Qwen/Qwen-7B-Chat', 'ref_model_type': None}),
        ('rlhf', ['--ref_model_id_or_path', 'r', '--ref_model_type', 'qwen-7b-chat'], {'ref_model': 'r', 'ref_model_type': None}),
        ('rlhf', ['--ref_model_free', 'false'], {'reference_free': False}),
        ('sft', ['--task_type', 'reranker'], {'num_labels': 1}),
        ('sft', ['--task_type', 'generative_reranker', '--loss_type', 'listwise_generative_reranker'], {'loss_type': 'listwise_reranker'}),
        ('sft', ['--task_type', 'generative_reranker', '--use_chat_template', 'false', '--system', 's'], {'system': 's'}),
        ('plan', ['--task_type', 'embedding', '--infonce_temperature', '0.02'], {'infonce_temperature': 0.02, 'rlhf_type': None}),
        ('preview', ['--rlhf_type', 'kto', '--desirable_weight', '2'], {'desirable_weight': 2.0, 'beta': 0.1}),
    ],
)
def test_what_a_method_settles(command, words, values):
    args = parse_args(command, [*BASE, *words], quiet=True)
    assert {name: getattr(args, name) for name in values} == values


@pytest.mark.parametrize(
    'words, part',
    [
        (['--loss_type', 'sigmoyd'], "did you mean 'sigmoid'?"),
        (['--rlhf_type', 'kto', '--loss_type', 'hinge'], "'hinge' is no loss of kto"),
        (['--loss_type', 'sigmoid', 'sft', '--loss_weights', '1'], '1 values for 2 losses'),
        (['--rlhf_type', 'grpo'], 'online reinforcement learning'),
        (['--rlhf_type', 'GKD'], 'online reinforcement learning'),
        (['--task_type', 'seq_cls'], 'does not go with --rlhf_type dpo'),
        (['--sft_beta', '0.1'], '--loss_type sigmoid sft --loss_weights'),
        (['--ref_model_free', 'true'], '--reference_free true'),
        (['--precompute_ref_log_probs', 'true', '--sync_ref_model', 'true'], 'changes the reference'),
        (['--reference_free', 'true', '--ref_model', 'm'], 'without a reference model'),
        (['--truncation_strategy', 'split', '--use_chat_template', 'false'], 'dpo needs whole samples'),
        (['--label_smoothing', '0.5'], 'from 0 to below 0.5'),
    ],
)
def test_refused(words, part):
    assert any(part in line for line in mistakes('rlhf', words))


def test_a_variable_of_the_shell_sets_a_flag_and_disturbs_no_other_method(monkeypatch):
    monkeypatch.setenv('INFONCE_TEMPERATURE', '0.02')
    monkeypatch.setenv('INFONCE_USE_BATCH', 'False')
    monkeypatch.setenv('LISTWISE_RERANKER_TEMPERATURE', '0.5')
    args = parse_args('sft', [*BASE, '--task_type', 'embedding'], quiet=True)
    assert (args.infonce_temperature, args.infonce_use_batch) == (0.02, False)
    assert args.sources['infonce_temperature'] == 'environment INFONCE_TEMPERATURE'
    assert parse_args('sft', BASE, quiet=True).model == 'm'
