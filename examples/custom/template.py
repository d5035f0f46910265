"""A chat format of your own, for a base model that has none.

swift sft --external_plugins examples/custom/template.py --template questions ...
"""

from swift.template import Template, register_template


@register_template('questions')
class Questions(Template):
    """Q: … / A: …, each answer ended by the model's end token."""

    system_prefix = '{{SYSTEM}}\n'
    user_prefix = 'Q: {{QUERY}}\n'
    assistant_prefix = 'A: {{RESPONSE}}<|im_end|>\n'
