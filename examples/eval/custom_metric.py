"""A metric of single answers, and one of all of them; for --external_plugins."""

from swift.plugin import eval_metrics_map, orms


def near(completion, solution):
    """1 for the right number, less the further away, 0 from 10 % on."""
    try:
        said, right = float(completion), float(solution)
    except ValueError:
        return 0.0
    return max(0.0, 1.0 - 10 * abs(said - right) / max(abs(right), 1.0))


def lengths(predictions, references):
    return {'length_of_answers': sum(map(len, predictions)) / len(predictions), 'length_of_references': sum(map(len, references)) / len(references)}


orms['near'] = near
eval_metrics_map['lengths'] = lengths
