"""What the chat page says, in each language."""

from __future__ import annotations

WORDS: dict[str, dict[str, str]] = {
    'en': {
        'system': 'System prompt',
        'system_hint': "empty: the model's own",
        'question': 'Ask something … (Shift+Enter: new line)',
        'retry': '↻ Answer again',
        'clear': '✕ New conversation',
        'model': 'Model',
        'base': 'without adapter',
        'settings': 'How answers are drawn',
        'max_tokens': 'Longest answer (tokens)',
        'temperature': 'Temperature (0: the likeliest)',
        'top_p': 'top_p',
        'top_k': 'top_k',
        'repetition_penalty': 'Repetition penalty',
        'seed': 'Seed (-1: another one each time)',
        'own': 'As the model suggests',
        'thinking': 'Thinking …',
        'thought': 'Thought',
        'empty': 'The conversation is empty.',
        'tokens': '{count} tokens in {seconds:.1f} s',
        'stop': '',
        'length': ' · cut off: the longest answer is reached',
        'abort': ' · stopped',
    },
    'zh': {
        'system': '系统提示词',
        'system_hint': '留空：模型自带的',
        'question': '请输入问题……（Shift+Enter 换行）',
        'retry': '↻ 重新回答',
        'clear': '✕ 新对话',
        'model': '模型',
        'base': '不用适配器',
        'settings': '生成参数',
        'max_tokens': '最长回答（token）',
        'temperature': '温度（0：总取最可能的词）',
        'top_p': 'top_p',
        'top_k': 'top_k',
        'repetition_penalty': '重复惩罚',
        'seed': '随机种子（-1：每次不同）',
        'own': '按模型的建议',
        'thinking': '思考中……',
        'thought': '思考过程',
        'empty': '对话为空。',
        'tokens': '{count} 个 token，{seconds:.1f} 秒',
        'stop': '',
        'length': ' · 已到最长回答，被截断',
        'abort': ' · 已停止',
    },
}
"""Language → key → text."""

LANGUAGES = {'en': 'English', 'zh': '中文'}
"""Language → its own name for itself."""


def language_of(header: str | None) -> str:
    """The language of a browser by its Accept-Language: Chinese where that is asked for first, else English."""
    first = (header or '').split(',')[0].strip().lower()
    return 'zh' if first.startswith('zh') else 'en'
