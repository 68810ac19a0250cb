"""Timing: rounds alternate, a warm-up does not count, what fails is left out. No test depends on a time."""
import torch

from scripts.benchmarks.common.timing import alternate, seconds_of


def test_all_take_turns_and_the_warm_up_does_not_count():
    log = []
    results, errors = alternate({key: lambda key=key: log.append(key) or len(log) for key in 'abc'}, 2, warm_up=1)
    assert ''.join(log) == 'abc' * 3 and not errors
    assert results == {'a': [4, 7], 'b': [5, 8], 'c': [6, 9]}


def test_what_fails_is_called_no_more_and_the_others_go_on():
    calls = iter([1., ZeroDivisionError()])

    def fails_later():
        value = next(calls)
        if isinstance(value, Exception):
            raise value
        return value

    results, errors = alternate({'good': lambda: 1., 'bad': fails_later}, 3)
    assert results == {'good': [1., 1., 1.]} and isinstance(errors['bad'], ZeroDivisionError)


def test_a_repeated_call_is_timed_by_its_mean():
    calls = []
    assert seconds_of(lambda: calls.append(None), torch.device('cpu'), repeats=3) > 0 and len(calls) == 3
