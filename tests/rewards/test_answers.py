"""What a text gives as its answer, and which answers are the same."""

import time

import pytest

from swift.rewards import final_answer, same_answer

SAME = [
    ('0.5', '1/2'), ('\\frac{1}{2}', '.5'), ('\\dfrac12', '0.50'), ('50%', '0.5'), ('50\\%', '50'), ('1,000', '1000'), ('$1,234.50', '1234.5'),
    ('1 1/2', '1.5'), ('1\\frac{1}{2}', '3/2'), ('−3', '-3'), ('1e3', '1000'), ('3.0\\times10^2', '300'), ('72.0', '72'), ('2^{10}', '1024'),
    ('x+1', '1+x'), ('(x+1)^2', 'x^2+2x+1'), ('(x+1)/(2x+2)', '1/2'), ('x=5', '5'), ('2/\\sqrt{2}', '\\sqrt2'), ('\\frac{\\sqrt{8}}{2}', '\\sqrt{2}'),
    ('\\sqrt{16}', '4'), ('2\\pi', 'π*2'), ('90^\\circ', '90'), ('5\\text{ cm}', '5'), ('(1,2)', '( 1, 2.0 )'), ('\\{1,2\\}', '\\{2,1\\}'),
    ('[0,\\frac12]', '[0,0.5]'), ('Paris.', 'the  PARIS'), ('１２', '12'), ('北京', '北京。'),
]  # fmt: skip
OTHER = [
    ('7', '72'), ('1000000000001', '1000000000000'), ('0.333', '1/3'), ('(1,2)', '(2,1)'), ('[0,1)', '(0,1)'), ('\\{1,1\\}', '\\{1,2\\}'),
    ('2\\pi', '6.28'), ('x', 'y'), ('72 apples', '72'), ('1/0', '3'), ('', '0'), ('9^9^9^9', '1'), ('-5', '5'), ('12', '1,2'),
]  # fmt: skip


@pytest.mark.parametrize(('one', 'two'), SAME)
def test_same(one, two):
    assert same_answer(one, two) and same_answer(two, one)


@pytest.mark.parametrize(('one', 'two'), OTHER)
def test_other(one, two):
    assert not same_answer(one, two) and not same_answer(two, one)


@pytest.mark.parametrize('text', ['9^9^9^9', '(' * 3000, '(x+y)^60', 'sqrt(' * 200, '1' * 5000, '10^400*' * 20 + '1', '-' * 100000, '{' * 50 + '1' + '}' * 50, '((a+b+c+d)^9)^9'])
def test_no_text_takes_long(text):
    begun = time.perf_counter()
    same_answer(text, '1')
    assert time.perf_counter() - begun < 1.0


@pytest.mark.parametrize(
    ('text', 'answer', 'marked'),
    [
        ('48/2 = 24\n#### 72', '72', True),
        ('so \\boxed{\\frac{1}{2}}, done', '\\frac{1}{2}', True),
        ('<think>\\boxed{3}</think> it is 7', 'it is 7', False),
        ('<answer> 12 </answer>', '12', True),
        ('So the answer is 5.25. Done', '5.25', True),
        ('The answer is: 42', '42', True),
        ('答案是 12。', '12', True),
        ('765', '765', False),
    ],
)
def test_final_answer(text, answer, marked):
    assert final_answer(text) == (answer, marked)


def test_the_last_number_stands_for_a_sentence():
    assert final_answer('I have 3 and 1,400 apples', number=True) == ('1,400', False)
    assert final_answer('x2 and v1.5b', number=True)[0] == 'x2 and v1.5b'
