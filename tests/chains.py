"""Keys that follow one another, and what each says of the next."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from barrel_p2p.proto.endorsement import MAX_LINKS, Chain, Endorsement, endorse
from pairs import ALICE, WALL, Keys, config

DAY = 86_400_000
K = [Keys(number) for number in range(10, 10 + MAX_LINKS + 2)]


def link(old: Keys, new: Keys, name: Any = ALICE, time: int = WALL - DAY) -> Endorsement:
    return endorse(name, old=old.public, new=new.public, time=time, sign_old=old.sign, sign_new=new.sign)


def chain(*keys: Keys) -> Chain:
    return tuple(link(old, new) for old, new in pairwise(keys))


def changed(name: Any, *keys: Keys) -> Any:
    links = tuple(link(old, new, name) for old, new in pairwise(keys))
    return config(name, keys[-1], chain=links)
