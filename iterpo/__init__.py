"""iterpo: an online, iterative preference-learning server. Start reading at iterpo/types.py."""

__version__ = "0.1.0"
