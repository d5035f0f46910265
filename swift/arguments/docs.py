"""`python -m swift.arguments.docs`: write docs/en/arguments.md and docs/zh/arguments.md from the argument classes.

`--check` writes nothing and fails when a page is out of date. English lines are the docstrings under the fields;
Chinese ones stand in docs/zh/arguments.json, by flag, or by `Class.flag` where two classes explain one flag differently.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from swift.arguments.aliases import ALIASES, ENVIRONMENT
from swift.arguments.commands import CLASSES
from swift.arguments.flags import Flag, flags_of, help_of
from swift.arguments.later import facts

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

SECTIONS = (
    ('ModelArgs', 'Model', '模型'),
    ('DataArgs', 'Data', '数据'),
    ('TemplateArgs', 'Template', '模板'),
    ('MediaArgs', 'Images, videos and sounds', '图像、视频与音频'),
    ('TunerArgs', 'What learns', '微调'),
    ('TrainArgs', 'Training', '训练'),
    ('RlhfArgs', 'Preferences', '偏好学习'),
    ('ScoringArgs', 'Vectors and scores', '向量与得分'),
    ('TaskArgs', 'Tasks other than the next token', '其他任务'),
    ('GenerationArgs', 'Generation', '生成'),
    ('EngineArgs', 'Engine', '推理引擎'),
    ('ClientArgs', 'A server that answers', '由服务回答'),
    ('BackendArgs', 'vLLM, SGLang, LMDeploy', 'vLLM、SGLang、LMDeploy'),
    ('InferArgs', 'Answering', '推理'),
    ('AppArgs', 'Chat page', '聊天页面'),
    ('QuestionArgs', 'Questions with known answers', '已知答案的问题'),
    ('EvalArgs', 'Evaluation', '评测'),
    ('SampleArgs', 'Sampling', '采样'),
    ('DeployArgs', 'Serving', '服务'),
    ('ExportArgs', 'Export and merging', '导出与合并'),
    ('PreviewArgs', 'Preview', '预览'),
    ('VerifyArgs', 'Verify', '检验'),
    ('RunArgs', 'Run', '运行'),
)
"""Group, English heading, Chinese heading."""

TEXTS = {
    'en': {
        'title': '# Arguments',
        'made': '<!-- made by `python -m swift.arguments.docs`; edit the docstrings in swift/arguments instead -->',
        'intro': (
            'Flags come from the command line, then from `--config file.yaml|json` (or a file as first word), then from the '
            'environment, then from defaults; `args.json` in every run directory shows which. Lists are written with spaces or '
            'commas, dictionaries as JSON; a bool flag alone means true. Any field of `transformers.TrainingArguments` is a flag '
            'of the training commands too. `none` as default: see the text.'
        ),
        'columns': '| flag | type | default | meaning |',
        'commands': 'Commands: ',
        'differ': '## Defaults that differ by command',
        'differ_columns': '| command | flag | default |',
        'old': '## Old spellings',
        'old_text': 'Understood with one line of advice. Two spellings with different values are an error.',
        'old_columns': '| old | since | today |',
        'environment': '## Environment',
        'environment_columns': '| variable | flag |',
        'later': '## Not part of this version',
        'later_text': 'Flags of these capabilities are known by name and refused with the reason.',
    },
    'zh': {
        'title': '# 参数',
        'made': '<!-- 由 `python -m swift.arguments.docs` 生成；中文说明在 docs/zh/arguments.json -->',
        'intro': (
            '参数的优先级：命令行，然后是 `--config file.yaml|json`（或第一个词为文件），然后是环境变量，最后是默认值；每个运行目录中的 '
            '`args.json` 记录其来源。列表用空格或逗号分隔，字典写成 JSON；布尔参数单独出现表示 true。训练命令还接受 '
            '`transformers.TrainingArguments` 的任何字段。默认值为 `none` 的见说明。'
        ),
        'columns': '| 参数 | 类型 | 默认值 | 说明 |',
        'commands': '命令：',
        'differ': '## 因命令而异的默认值',
        'differ_columns': '| 命令 | 参数 | 默认值 |',
        'old': '## 旧写法',
        'old_text': '可以使用，并给出一行提示。两种写法取值不同则报错。',
        'old_columns': '| 旧写法 | 版本 | 现写法 |',
        'environment': '## 环境变量',
        'environment_columns': '| 变量 | 参数 |',
    },
}


def page(language: str) -> str:
    """The page of one language, `en` or `zh`."""
    words = TEXTS[language]
    chinese = _chinese() if language == 'zh' else {}
    lines = [words['title'], '', words['made'], '', words['intro']]
    for group, english_title, chinese_title in SECTIONS:
        lines += ['', f'## {english_title if language == "en" else chinese_title}', '']
        owner, flags, commands = _section(group)
        lines += [
            words['commands'] + ', '.join(f'`{name}`' for name in commands),
            '',
            words['columns'],
            '| --- | --- | --- | --- |',
        ]
        english = help_of(owner)
        for flag in flags:
            text = english[flag.name] if language == 'en' else chinese.get(f'{group}.{flag.name}') or chinese[flag.name]
            lines.append(f'| `--{flag.name}` | {_type(flag)} | {_default(flag.default)} | {_cell(text)} |')
    lines += ['', words['differ'], '', words['differ_columns'], '| --- | --- | --- |', *_differing()]
    lines += ['', words['old'], '', words['old_text'], '', words['old_columns'], '| --- | --- | --- |']
    lines += [f'| `--{old}` | {alias.since} | `--{alias.new}` |' for old, alias in sorted(ALIASES.items())]
    lines += ['', words['environment'], '', words['environment_columns'], '| --- | --- |']
    lines += [
        f'| `{variable}` | `--{ALIASES[flag].new if flag in ALIASES else flag}` |'
        for variable, flag in ENVIRONMENT.items()
    ]
    if language == 'en':
        lines += ['', words['later'], '', words['later_text'], '', *_later()]
    return '\n'.join(lines) + '\n'


def _section(group: str) -> tuple[type, list[Flag], list[str]]:
    """The class of a group, its flags, and the commands that have it."""
    flags: list[Flag] = []
    commands: list[str] = []
    for command, cls in CLASSES.items():
        own = [flag for flag in flags_of(cls).values() if flag.group.__name__ == group]
        if own:
            commands.append(command)
            flags = flags or own
    owner = flags[0].group
    defaults = flags_of(owner)
    return owner, [defaults[flag.name] for flag in flags], commands


def _differing() -> list[str]:
    lines = []
    for command, cls in CLASSES.items():
        for flag in flags_of(cls).values():
            usual = flags_of(flag.group)[flag.name].default
            if _default(flag.default) != _default(usual):
                lines.append(f'| `{command}` | `--{flag.name}` | {_default(flag.default)} |')
    return lines


def _later() -> list[str]:
    sentences = facts()['capabilities'].values()
    return [f'- {sentence if sentence[1].isupper() else sentence[0].upper() + sentence[1:]}.' for sentence in sentences]


def _type(flag: Flag) -> str:
    return _cell(' / '.join(f'`{choice}`' for choice in flag.choices) if flag.choices else flag.type_name)


def _default(value: Any) -> str:
    if value is None or value == [] or value == {}:
        return 'none'
    text = (
        json.dumps(value)
        if isinstance(value, (dict, bool))
        else ' '.join(value)
        if isinstance(value, list)
        else str(value)
    )
    return f'`{text}`'


def _cell(text: str) -> str:
    return text.replace('|', '\\|')


def _chinese() -> dict[str, str]:
    with open(os.path.join(ROOT, 'docs', 'zh', 'arguments.json'), encoding='utf-8') as file:
        return json.load(file)


def main(words: list[str]) -> int:
    """Write the pages, or with --check say which are out of date."""
    stale = []
    for language in TEXTS:
        path = os.path.join(ROOT, 'docs', language, 'arguments.md')
        text = page(language)
        if os.path.isfile(path):
            with open(path, encoding='utf-8') as file:
                if file.read() == text:
                    continue
        stale.append(path)
        if '--check' not in words:
            with open(path, 'w', encoding='utf-8') as file:
                file.write(text)
    for path in stale:
        print(('out of date: ' if '--check' in words else 'wrote ') + os.path.relpath(path, ROOT))
    return 1 if stale and '--check' in words else 0


if __name__ == '__main__':
    raise SystemExit(main(sys.argv[1:]))
