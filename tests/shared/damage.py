"""What can happen to the bytes of a file."""

import struct


def flip(content, rng):
    place = somewhere(content, rng)
    return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]


def overwrite(content, rng):
    """Lengths and counts become absurd."""
    place = somewhere(content, rng)
    number = rng.choice([0, 1, 127, 255, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1])
    kind = rng.choice(["<Q", "<I", ">I", "<H", "B"])
    written = struct.pack(kind, number & (2 ** (8 * struct.calcsize(kind)) - 1))
    return content[:place] + written + content[place + len(written) :]


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def repeat(content, rng):
    place, length = somewhere(content, rng), rng.randrange(1, 400)
    return content[:place] + content[place : place + length] * rng.randrange(2, 5) + content[place + length :]


def move(content, rng):
    here, there, length = somewhere(content, rng), somewhere(content, rng), rng.randrange(1, 64)
    return content[:there] + content[here : here + length] + content[there + length :]


def somewhere(content, rng):
    """Often near an end, where headers and indices are; sometimes at a word of the format's own."""
    places = (
        lambda: rng.randrange(min(len(content), 4096)),
        lambda: len(content) - 1 - rng.randrange(min(len(content), 8192)),
    )
    return rng.choice([*places, lambda: rng.randrange(len(content))])()


MUTATIONS = (flip, overwrite, cut, repeat, move)


def damaged(content, rng):
    """The bytes of a file with one or three changes."""
    for _ in range(rng.choice([1, 1, 1, 3])):
        content = rng.choice(MUTATIONS)(content, rng) or content
    return content
