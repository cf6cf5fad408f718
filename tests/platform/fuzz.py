"""Hostile inputs, drawn: messages whose fields hold what nobody sends, mutated bytes, JSON that is nearly right."""

from __future__ import annotations

import os
import random
import string
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

INPUTS = int(os.environ.get("ITERPO_FUZZ", "1500"))
"""Of each kind. ITERPO_FUZZ=100000 is what the documentation's figure was measured with."""
TEXTS = ("", " ", "a", "r1", "../../etc/passwd", "/", "\x00", "\u202e", "ann/bob", "x" * 5000, "☂" * 300)
TEXTS += ("null", "%s%n", "-1")
NUMBERS = (0, 1, -1, 2, 7, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63))
REALS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e308, -1e308, float("nan"), float("inf"), float("-inf"))
JSONS = (None, True, False, 0, -1, 1e400, "", "x", [], {}, [None], {"": None}, [[[[]]]], "\ud800", 10**400)


def fill(message: Any, draw: random.Random, depth: int = 0) -> Any:
    """Some of its fields, with values from the edges."""
    for field in message.DESCRIPTOR.fields:
        if draw.random() < 0.45 or depth > 4:
            continue
        if field.is_repeated:
            _fill_repeated(message, field, draw, depth)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), draw, depth + 1)
        else:
            setattr(message, field.name, _value(field, draw))
    return message


def _fill_repeated(message: Any, field: Any, draw: random.Random, depth: int) -> None:
    target, count = getattr(message, field.name), draw.choice((0, 1, 2, 3))
    entry = field.message_type is not None and field.message_type.GetOptions().map_entry
    for _ in range(count):
        if entry:
            key, value = (field.message_type.fields_by_name[side] for side in ("key", "value"))
            if value.type == FieldDescriptor.TYPE_MESSAGE:
                fill(target[_value(key, draw)], draw, depth + 1)
            else:
                target[_value(key, draw)] = _value(value, draw)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            fill(target.add(), draw, depth + 1)
        else:
            target.append(_value(field, draw))


def _value(field: Any, draw: random.Random) -> Any:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_STRING:
        text = (
            draw.choice(TEXTS) if draw.random() < 0.7 else "".join(draw.choices(string.printable, k=draw.randrange(30)))
        )
        return text.encode() if field.type == FieldDescriptor.TYPE_BYTES else text
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return draw.choice(REALS)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return draw.random() < 0.5
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        return draw.choice([*(value.number for value in field.enum_type.values), 99])
    low, high = (0, 2**31 - 1) if "UINT" in str(kind) else (-(2**31), 2**31 - 1)
    if kind in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64):
        low, high = low * 2**32, high * 2**32
    if kind in (FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64):
        low = 0
    return min(max(draw.choice(NUMBERS), low), high)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A few bytes of it changed, cut out or put in."""
    changed = bytearray(data or b"\x00")
    for _ in range(draw.randrange(1, 6)):
        place = draw.randrange(len(changed) + 1)
        match draw.randrange(3):
            case 0 if place < len(changed):
                changed[place] = draw.randrange(256)
            case 1:
                del changed[place : place + draw.randrange(8)]
            case _:
                changed[place:place] = draw.randbytes(draw.randrange(1, 8))
    return bytes(changed)


def json_value(draw: random.Random, keys: tuple[str, ...], depth: int = 0) -> Any:
    """An object with some of the keys, and values of every kind."""
    if depth > 3 or draw.random() < 0.4:
        return draw.choice((*JSONS, *TEXTS))
    if draw.random() < 0.3:
        return [json_value(draw, keys, depth + 1) for _ in range(draw.randrange(4))]
    return {draw.choice(keys): json_value(draw, keys, depth + 1) for _ in range(draw.randrange(5))}
