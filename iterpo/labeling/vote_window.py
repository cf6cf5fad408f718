"""`VoteWindow`: the votes on the items labelled last."""

from __future__ import annotations

from collections import Counter, defaultdict

from iterpo.labeling.annotator import Vote


class VoteWindow:
    """Votes by item and by annotator; a vote on item number `window_items` + 1 lets go of the item left alone
    longest."""

    def __init__(self, window_items: int) -> None:
        self.window_items = window_items
        self.labels: Counter[str] = Counter()
        """By annotator, all ever seen and not taken back."""
        self._by_item: dict[str, dict[str, Vote]] = {}
        self._by_annotator: dict[str, dict[str, Vote]] = defaultdict(dict)
        self._item_of: dict[str, str] = {}

    def add(self, vote: Vote) -> bool:
        """False when the vote is there already."""
        if vote.vote_id in self._item_of:
            return False
        votes = self._by_item.pop(vote.item, {})
        votes[vote.vote_id] = vote
        self._by_item[vote.item] = votes  # now the last in the dictionary's order
        self._by_annotator[vote.annotator][vote.vote_id] = vote
        self._item_of[vote.vote_id] = vote.item
        self.labels[vote.annotator] += 1
        while len(self._by_item) > self.window_items:
            for old in list(self._by_item[next(iter(self._by_item))].values()):
                self._drop(old)
        return True

    def remove(self, vote_id: str) -> bool:
        """False when the vote is not there (any more)."""
        item = self._item_of.get(vote_id)
        if item is None:
            return False
        vote = self._by_item[item][vote_id]
        self._drop(vote)
        self.labels[vote.annotator] -= 1
        return True

    def by_item(self) -> dict[str, list[Vote]]:
        """A copy, the item left alone longest first."""
        return {item: list(votes.values()) for item, votes in self._by_item.items()}

    def annotators(self) -> list[str]:
        return list(self._by_annotator)

    def of(self, annotator: str) -> list[Vote]:
        """In the order seen."""
        return list(self._by_annotator[annotator].values()) if annotator in self._by_annotator else []

    def _drop(self, vote: Vote) -> None:
        del self._item_of[vote.vote_id]
        del self._by_item[vote.item][vote.vote_id]
        if not self._by_item[vote.item]:
            del self._by_item[vote.item]
        del self._by_annotator[vote.annotator][vote.vote_id]
        if not self._by_annotator[vote.annotator]:
            del self._by_annotator[vote.annotator]
