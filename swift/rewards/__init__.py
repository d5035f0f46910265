"""Completion → score: outcome rewards (`orms`) judge an answer, process rewards (`prms`) the way to it.

    reward = load_reward('accuracy')
    reward(['The answer is 12.'], {'solution': ['12']})        # [1.0]

A plugin adds its own: `orms['mine'] = Mine`, a class with `__call__(completions, **columns)`, or a function of one completion.
"""

from swift.core.lazy import lazy_face

__getattr__, __dir__, __all__ = lazy_face(
    __name__,
    {
        'ORM': 'swift.rewards.base',
        'PRM': 'swift.rewards.base',
        'orms': 'swift.rewards.base',
        'prms': 'swift.rewards.base',
        'Reward': 'swift.rewards.base',
        'load_reward': 'swift.rewards.base',
        'combined': 'swift.rewards.base',
        'final_answer': 'swift.rewards.answers',
        'same_answer': 'swift.rewards.answers',
    },
)
