"""Dawid & Skene 1979, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm".

Every item has a true class nobody sees; every annotator answers with his own confusion matrix, independently of the
others given the class. EM alternates equations 2.3 and 2.4 (confusions and class prior from posteriors) with 2.5
(posteriors from those). Added to the paper: Dirichlet pseudo-counts (MAP), items of known class (gold), weights of
votes as exponents of their likelihood, and confusions tied under a mirror of the classes.

Not implemented: items' difficulty (GLAD), dependent annotators, an annotator answering an item several times in a way
that is not independent.

Letters: I items, A annotators, V votes, K classes (and as many symbols to answer with).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from iterpo.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]
Confusion = tuple[tuple[float, ...], ...]
"""[K][K]: row the true class, column the symbol answered; rows sum to 1."""

SMALLEST = 1e-12
"""Stands for a probability of 0 in logarithms: an estimate of 0 from a few votes is no proof."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """One vote: `annotator` says that `item` is of class `symbol`, in [0, K)."""

    item: str
    annotator: str
    symbol: int
    weight: float = 1.0
    """Exponent of the vote's likelihood; 0 leaves it out."""


@dataclass(frozen=True, slots=True)
class Model:
    """What is assumed before any vote."""

    classes: int
    class_counts: tuple[float, ...] = ()
    """[K] pseudo-counts of the class prior; empty: none (maximum likelihood)."""
    confusion_counts: Confusion = ()
    """[K][K] pseudo-counts of every annotator's confusion matrix; empty: none."""
    class_prior: tuple[float, ...] = ()
    """[K]; when given it is held fixed instead of estimated."""
    mirror: tuple[int, ...] = ()
    """[K] a permutation that is its own inverse, for example (1, 0, 2): confusion[k][l] and
    confusion[mirror[k]][mirror[l]] are one parameter, and so are the priors of k and mirror[k]. Empty: nothing tied."""
    max_iterations: int = 100
    tolerance: float = 1e-5
    """EM ends when no posterior moved more."""

    def __post_init__(self) -> None:
        classes = list(range(self.classes))
        if self.mirror and (sorted(self.mirror) != classes or [self.mirror[k] for k in self.mirror] != classes):
            raise InvalidInput(
                f"mirror {self.mirror} is no permutation of {self.classes} classes that undoes itself.",
                "Swap pairs of classes and leave the others: (1, 0, 2), for example.",
            )


@dataclass(frozen=True, slots=True)
class Fit:
    items: tuple[str, ...]
    posteriors: Floats
    """[I, K], rows as in `items`."""
    annotators: tuple[str, ...]
    confusions: Floats
    """[A, K, K], first axis as in `annotators`, then true class, then symbol."""
    prior: Floats
    """[K]"""
    iterations: int
    log_likelihood: float
    """Nats, of the votes and the known classes, without the pseudo-counts. It never falls from one iteration to
    the next when there are none of those."""

    def posterior_of(self, item: str) -> Floats:
        found: Floats = self.posteriors[self.items.index(item)]
        return found


@dataclass(slots=True)
class _Votes:
    """The votes as arrays, and the sums over them that EM needs."""

    item: Ints
    """[V]"""
    annotator: Ints
    """[V]"""
    symbol: Ints
    """[V]"""
    weight: Floats
    """[V]"""
    items: int
    annotators: int
    classes: int
    known: dict[int, int] = field(default_factory=dict)
    """Item -> class."""

    def shares(self) -> Floats:
        """[I, K] share of the votes for every class: where EM starts, as in the paper's section 4."""
        counts = np.zeros((self.items, self.classes))
        np.add.at(counts, (self.item, self.symbol), self.weight)
        return self.pinned((counts + 1e-9) / (counts + 1e-9).sum(axis=1, keepdims=True))

    def pinned(self, posteriors: Floats) -> Floats:
        if self.known:
            rows = np.fromiter(self.known, np.intp)
            posteriors[rows] = np.eye(self.classes)[np.fromiter(self.known.values(), np.intp)]
        return posteriors

    def confusion_counts(self, posteriors: Floats) -> Floats:
        """[A, K, K]"""
        cell, cells = self.annotator * self.classes + self.symbol, self.annotators * self.classes
        by_class = [
            np.bincount(cell, self.weight * posteriors[self.item, k], cells).reshape(self.annotators, self.classes)
            for k in range(self.classes)
        ]
        return np.stack(by_class, axis=1)

    def log_joint(self, confusions: Floats, prior: Floats) -> Floats:
        """[I, K] log of prior times likelihood."""
        logs = np.log(np.maximum(confusions, SMALLEST))
        said = logs[self.annotator, :, self.symbol] * self.weight[:, None]
        summed = [np.bincount(self.item, said[:, k], self.items) for k in range(self.classes)]
        joint: Floats = np.stack(summed, axis=1) + np.log(np.maximum(prior, SMALLEST))
        return joint


def dawid_skene(ballots: Sequence[Ballot], model: Model, known: Mapping[str, int] | None = None) -> Fit:
    """EM from the vote shares; deterministic. `known`: items whose class is given; they need no votes."""
    items = {name: i for i, name in enumerate(dict.fromkeys([b.item for b in ballots] + list(known or ())))}
    annotators = {name: i for i, name in enumerate(dict.fromkeys(b.annotator for b in ballots))}
    votes = _Votes(
        np.array([items[b.item] for b in ballots], np.intp),
        np.array([annotators[b.annotator] for b in ballots], np.intp),
        np.array([b.symbol for b in ballots], np.intp),
        np.array([b.weight for b in ballots], np.float64),
        len(items),
        len(annotators),
        model.classes,
        {items[name]: k for name, k in (known or {}).items()},
    )
    posteriors = votes.shares()
    confusions, prior = _parameters(votes, posteriors, model)
    iterations, log_likelihood, moved = 0, -math.inf, math.inf
    while iterations < model.max_iterations and moved > model.tolerance:
        joint = votes.log_joint(confusions, prior)
        log_likelihood = _log_likelihood(joint, votes.known)
        before, posteriors = posteriors, votes.pinned(normalised(joint))
        moved = float(np.abs(posteriors - before).max(initial=0.0))
        confusions, prior = _parameters(votes, posteriors, model)
        iterations += 1
    return Fit(tuple(items), posteriors, tuple(annotators), confusions, prior, iterations, log_likelihood)


def normalised(log_joint: Floats) -> Floats:
    """[..., K] log weights -> probabilities that sum to 1 over the last axis."""
    weights = np.exp(log_joint - log_joint.max(axis=-1, keepdims=True, initial=-1e300))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _parameters(votes: _Votes, posteriors: Floats, model: Model) -> tuple[Floats, Floats]:
    """The M-step: confusions [A, K, K] and the class prior [K]."""
    counts = votes.confusion_counts(posteriors)
    if model.confusion_counts:
        counts = counts + np.array(model.confusion_counts)
    classes = posteriors.sum(axis=0) + (np.array(model.class_counts) if model.class_counts else 0.0)
    if model.mirror:
        mirror = list(model.mirror)
        counts, classes = counts + counts[:, mirror][:, :, mirror], classes + classes[mirror]
    prior = np.array(model.class_prior) if model.class_prior else _rows(classes)
    return _rows(counts), prior


def _rows(counts: Floats) -> Floats:
    """Counts to probabilities over the last axis; rows without any are uniform."""
    total = counts.sum(axis=-1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1.0), 1.0 / counts.shape[-1])


def _log_likelihood(joint: Floats, known: Mapping[int, int]) -> float:
    top = joint.max(axis=1, initial=-1e300)
    by_item = top + np.log(np.exp(joint - top[:, None]).sum(axis=1))
    for item, k in known.items():
        by_item[item] = joint[item, k]
    return float(by_item.sum())


def posterior(
    votes: Sequence[tuple[str, int, float]], confusions: Mapping[str, Confusion], prior: Sequence[float]
) -> tuple[float, ...]:
    """One item's classes [K] from its votes (annotator, symbol, weight): equation 2.5 alone.

    Plain arithmetic, because it runs inside a database transaction: 3 votes of 3 classes take about 3 microseconds.
    """
    logs = [math.log(max(p, SMALLEST)) for p in prior]
    for annotator, symbol, weight in votes:
        for k, row in enumerate(confusions[annotator]):
            logs[k] += weight * math.log(max(row[symbol], SMALLEST))
    top = max(logs)
    weights = [math.exp(log - top) for log in logs]
    total = sum(weights)
    return tuple(weight / total for weight in weights)
