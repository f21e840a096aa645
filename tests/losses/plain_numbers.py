"""Arithmetic on plain numbers and lists of them, with derivatives that are exact to rounding.

`derivatives` uses the complex step: a number that is moved by 1e-100 i carries its derivative in
its imaginary part. This is no difference of two values.
"""

import cmath

STEP = 1e-100
KINK = 1e-7


class AtKink(Exception):
    """The derivative of a hinge, or of another function with a kink, is wanted near the kink."""


def derivatives(function, numbers):
    """d function(numbers) / d numbers, for a list of floats and a function that gives a number."""
    return [
        complex(function([*numbers[:i], x + STEP * 1j, *numbers[i + 1 :]])).imag / STEP
        for i, x in enumerate(numbers)
    ]


def refuse_kink(x):
    if abs(x.real) < KINK and x.imag:
        raise AtKink


def positive_part(x):
    """[x]_+"""
    refuse_kink(x)
    return x if x.real > 0 else 0.0


def dot(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True))


def unit(vector):
    length = cmath.sqrt(dot(vector, vector))
    return [x / length for x in vector]


def constant(vector):
    return [x.real for x in vector]


def mean_vector(vectors):
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def squared_distance(a, b):
    return sum((x - y) * (x - y) for x, y in zip(a, b, strict=True))


def distance(a, b):
    """Euclidean distance; 0 with derivative 0 between equal vectors.

    Between vectors that nearly coincide, 2 - 2 cos has no precise derivative.
    """
    squared = squared_distance(a, b)
    if 1e-14 < squared.real < 1e-6 and squared.imag:
        raise AtKink
    return cmath.sqrt(squared) if squared.real > 1e-14 else 0.0


def log_sum_exp(values):
    largest = max(x.real for x in values)
    return largest + cmath.log(sum(cmath.exp(x - largest) for x in values))


def softmax(values):
    largest = max(x.real for x in values)
    exponentials = [cmath.exp(x - largest) for x in values]
    return [e / sum(exponentials) for e in exponentials]


def sigmoid(x):
    if x.real < 0:
        return 1 - sigmoid(-x)
    return 1 / (1 + cmath.exp(-x))


def cross_entropy(logits, label):
    return log_sum_exp(logits) - logits[label]
