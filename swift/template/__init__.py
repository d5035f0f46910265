"""Conversation ↔ tokens, by the model's own Jinja chat template.

Entered by `get_template(tokenizer, args) -> Template`; `assistant_spans` answers for any Jinja source which characters
the assistant said.
"""

from swift.core.lazy import lazy_face

_NAMES = {
    'get_template': 'swift.template.build',
    'Template': 'swift.template.encode',
    'TemplateMeta': 'swift.template.meta',
    'register_template': 'swift.template.registry',
    'templates_map': 'swift.template.registry',
    'TEMPLATE_MAPPING': 'swift.template.registry',
    'assistant_spans': 'swift.template.spans',
    'SpanFinder': 'swift.template.spans',
    'update_generation_config_eos_token': 'swift.template.stops',
    'agent_template_map': 'swift.template.tools',
    'AgentFormat': 'swift.template.tools',
    'loss_scale_names': 'swift.template.weights',
    'parse_loss_scale': 'swift.template.weights',
}

__getattr__, __dir__, __all__ = lazy_face(__name__, _NAMES)
