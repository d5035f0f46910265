"""The tree search on a game whose best answer is known."""

import math
import random

from swift.pipelines.sample_tree import TreeSearch

SECRET = (1, 0, 1, 1, 0, 1, 0, 0)
"""One of 256 answers; the value of a beginning is how its digits fit."""


def fits(digits):
    return sum(mine == right for mine, right in zip(digits, SECRET, strict=False)) / len(SECRET)


def search(iterations, exploration=0.3, seed=0, judge=None, depth=16, **settings):
    rng = random.Random(seed)

    def grow(digits):
        steps = [(*digits, digit) for digit in (0, 1)]
        rng.shuffle(steps)
        return [(step, len(step) == len(SECRET)) for step in steps]

    def rollout(grown):
        values = []
        for digits, _ in grown:
            rest = [rng.randrange(2) for _ in range(len(SECRET) - len(digits))]
            values.append(fits((*digits, *rest)))
        return values

    return TreeSearch((), grow, judge or rollout, exploration=exploration, iterations=iterations, depth=depth, **settings)


def test_the_best_answer_is_found_with_a_fraction_of_all():
    """60 descents (of 255 inner nodes) find the one best of 256 answers in at least 19 of 20 searches; 60 blind answers do in 4 of 20."""
    assert sum(search(60, seed=seed).run()[0].state == SECRET for seed in range(20)) >= 19
    assert 20 * (1 - (255 / 256) ** 60) < 4.2


def test_everything_is_found_when_there_is_time_and_then_it_ends():
    tree = search(10_000)
    ends = tree.run()
    assert len(ends) == 256 and tree.iterations == 2 * 255 and tree.root.closed, 'each inner node is grown, and once more in vain'
    assert ends[0].state == SECRET and ends[0].score == 1.0
    assert [end.score for end in ends] == sorted((end.score for end in ends), reverse=True)


def test_visits_and_values_add_up():
    tree = search(40)
    tree.run()

    def check(node):
        if node.children:
            assert node.visits == sum(child.visits for child in node.children) + (node is not tree.root)
            assert math.isclose(node.total, sum(child.total for child in node.children) + (0.0 if node is tree.root else node.own), abs_tol=1e-9)
        for child in node.children:
            check(child)

    def first_values(node):  # what a node was worth when it was made
        node.own = node.total - sum(child.total for child in node.children)
        for child in node.children:
            first_values(child)

    first_values(tree.root)
    check(tree.root)


def test_exploration_weighs_what_is_unknown():
    """The first step 0 is worth 0.6, the step 1 only 0.3: without exploration 1 is never gone into, with more of it more often."""

    def visits(exploration):
        tree = search(60, exploration=exploration, judge=lambda grown: [0.6 if digits[0] == 0 else 0.3 for digits, _ in grown])
        tree.run()
        return next(child.visits for child in tree.root.children if child.state == (1,))

    assert visits(0.0) == 1 < visits(0.5) < visits(2.0)


def test_steps_that_come_up_later_are_found_too():
    """A model that says the rare step once in four growths: the search asks again, instead of ending."""
    asked = []

    def grow(state):
        asked.append(state)
        return [('rare' if len(asked) == 2 else 'common', True)]

    tree = TreeSearch('', grow, lambda grown: [float(state == 'rare') for state, _ in grown], iterations=50)
    assert [end.state for end in tree.run()] == ['rare', 'common'] and len(asked) == 3


def test_it_stops_when_there_is_enough_or_no_step_left():
    tree = search(1000, enough=lambda: True)
    tree.run()
    assert tree.iterations == 1
    assert search(1000, depth=0).run() == []
    assert search(1000, depth=3).run() == []


def test_equal_seeds_give_equal_searches():
    one, two = (search(50, seed=7) for _ in range(2))
    assert [end.state for end in one.run()] == [end.state for end in two.run()] and one.root.total == two.root.total
