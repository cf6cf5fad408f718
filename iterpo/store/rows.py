"""Columns with their types: STRICT tables promise them, SQLite's interface does not say them."""

from __future__ import annotations


def int_of(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected an integer column, got {type(value).__name__}")
    return value


def float_of(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError(f"expected a real column, got {type(value).__name__}")
    return float(value)


def str_of(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text column, got {type(value).__name__}")
    return value


def bytes_of(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"expected a blob column, got {type(value).__name__}")
    return value
