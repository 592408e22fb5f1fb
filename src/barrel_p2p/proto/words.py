"""A public key as words, for people who compare it on the phone.

The fingerprint is a hash of 256 bits; its first 128 are 16 words of 8 bits each. That is enough: who wants to pass for
somebody needs a key with these very 16 words, which takes 2**128 attempts. No two words of the list share their first
three letters, so that one that was half heard is still the right one.
"""

from __future__ import annotations

import hashlib

_TEXT = """
abbey acorn actor adobe agent album alley amber ankle apple april arrow atlas attic bacon badge bagel baker
banjo barn basil beach bench berry bike birch bison bloom boat bone book bowl bread brick brush bugle bulb cabin
cake camel canal cedar cello chair cider clay clock coal cobra coin comet coral crow cube cup daisy dance dawn
deer denim desk diary disk ditch diver door dove drum duck dune dust eagle earth easel echo egg elbow elder elk
ember envoy equal fable farm fence fern field finch fire fish flag flute foam fog fox frame frost fruit fudge
gate gecko ghost giant glass globe goat gold goose grape gull gym habit hat hawk hazel heart hedge heron hill
hinge hippo hobby holly honey hook horse hotel house hub human husky ice igloo inch ink iris iron ivory ivy jade
jelly jewel joke judge juice kayak key kiosk kiwi knee koala label lake lamp lark lava lawn leaf ledge lemon
lens lily lime linen lion lotus lunch lynx lyric mango maple mask medal melon metal mica mill mint moat model
mole moon moss motor mouse mule nest night noble north note novel nurse nut nylon oak oasis oat ocean olive
onion opal opera orbit otter oval oven owl paint palm panda paper pasta peach piano pine pizza plum poem polar
pond poppy prism quail queen raft rain reef rice roof rope rose ruby rug sail sand seal seed ship sled snow soap
sofa soup sun swan tent twig vase vine wolf wood yard zero zinc zoo
"""

WORDS = tuple(_TEXT.split())
COUNT = 16


def fingerprint_words(public_key: bytes) -> str:
    """The first half of the fingerprint as 16 words.

    Example: ``fingerprint_words(node.keys.public_key)``
    """
    return " ".join(WORDS[byte] for byte in hashlib.sha256(public_key).digest()[:COUNT])


__all__ = ["COUNT", "WORDS", "fingerprint_words"]
