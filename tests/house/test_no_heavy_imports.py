"""What answers at once must not load torch: `import swift`, parsing, help, the light rooms."""

import os
import subprocess
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HEAVY = (
    'torch',
    'transformers',
    'peft',
    'datasets',
    'accelerate',
    'numpy',
    'pyarrow',
    'pandas',
    'huggingface_hub',
    'modelscope',
)

SNIPPETS = {
    'import swift': 'import swift; swift.__version__; dir(swift)',
    'parse sft': "from swift.arguments import parse_args; parse_args('sft', ['--model', 'm', '--dataset', 'd', '--use_cpu'])",
    'parse with mistakes': (
        'from swift.arguments import parse_args\n'
        'try:\n'
        "    parse_args('sft', ['--modle', 'm', '--deepspeed', 'zero2', '--model_type', 'qwen-8b-chat'])\n"
        'except ValueError as error:\n'
        '    assert len(error.mistakes) >= 3\n'
    ),
    'parse infer': "from swift.arguments import parse_args; parse_args('infer', ['--model', 'm'])",
    'save': (
        'import tempfile; from swift.arguments import parse_args, save_args\n'
        "save_args(parse_args('sft', ['--model', 'm', '--dataset', 'd']), tempfile.mkdtemp())"
    ),
    'swift --help': "from swift.cli.main import cli_main; assert cli_main(['--help']) == 0",
    'swift sft --help': "from swift.cli.main import cli_main; assert cli_main(['sft', '--help']) == 0",
    'swift infer with a mistake': "from swift.cli.main import cli_main; assert cli_main(['infer', '--bogus', '1']) == 2",
    'swift sft with a mistake': "from swift.cli.main import cli_main; assert cli_main(['sft', '--bogus', '1']) == 2",
    'launcher': 'import swift.parallel.launch',
    'core': 'import swift.core.types, swift.core.registry, swift.core.errors, swift.core.log, swift.core.dist, swift.core.jsonl',
}


@pytest.mark.parametrize('snippet', SNIPPETS.values(), ids=SNIPPETS)
def test_nothing_heavy_is_loaded(snippet):
    code = f'{snippet}\nimport sys\nprint("LOADED", [name for name in {HEAVY!r} if name in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == 'LOADED []'
