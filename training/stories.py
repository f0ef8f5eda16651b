"""Short stories, poems and advice of sixty to a hundred and twenty words, from templates."""

from __future__ import annotations

import random

ANIMALS = (
    "fox",
    "otter",
    "owl",
    "bear",
    "rabbit",
    "mouse",
    "heron",
    "frog",
    "hedgehog",
    "cat",
    "dog",
    "duck",
    "beaver",
    "deer",
    "sparrow",
)

_OPENINGS = (
    "Once upon a time there was a {s} who lived near a small stream.",
    "A long time ago, a {s} lived at the edge of a quiet forest.",
    "In a green valley, far from the noisy towns, there was a {s}.",
    "There was once a {s} that wanted to see the sea.",
    "High in the hills, where a rill runs between the stones, stood a {s}.",
)
_WISHES = (
    "Every morning the {s} looked at the water and asked where it was going.",
    "The {s} was happy, but it often dreamed of a long journey.",
    "Everyone in the valley knew the {s} and told stories about it.",
    "Nobody knew how old the {s} was, and nobody dared to ask.",
    "The {s} had one secret, and only the wind had ever heard it.",
)
_EVENTS = (
    "One day, {p} came along the path and sat down in the shade.",
    "One evening, a traveler named {p} knocked and asked for help.",
    "Then winter came, and {p} brought a lantern and a warm blanket.",
    "On the first day of spring, {p} found an old map under a stone.",
)
_TALKS = (
    '"Follow the water," said {p}, "because small streams become great rivers."',
    '"You do not have to hurry," said {p}. "One step after the other is enough."',
    '"I know the way," said {p}, "and I do not want to go alone."',
    '"Listen," said {p}. "The river is telling us its story." 🌊',
)
_TROUBLES = (
    "On the way a storm broke the bridge, and they had to build a raft of branches.",
    "In the middle of the night a great wave came, but they held each other tight.",
    "They lost the path in the fog, and only the sound of the water led them on.",
    "A big stone blocked the way, so they asked all their friends to push together.",
)
_ENDINGS = (
    "In the end they reached the sea, and the {s} laughed for the first time.",
    "At last the sun came out again, and the {s} knew that it had found a friend.",
    "Since that day the {s} and {p} meet every evening and watch the water flow.",
    "And so the {s} learned that even a little rill finds its way.",
)

_POEM_STARTS = (
    ("A {s} beside the water stood,", "and sang as quietly as it could."),
    ("The {s} awoke at break of day,", "and watched the small rill run away."),
    ("I saw a {s} in the morning light,", "it shone so soft, it shone so bright."),
)
_POEM_MIDDLES = (
    ("The river hummed, the wind was mild,", "the clouds above them only smiled."),
    ("Drop by drop and stone by stone,", "no stream must ever flow alone."),
    ("It asked the moon, it asked the rain,", "and heard the answer once again."),
    ("The night was long, the stars were near,", "and every little sound was clear."),
)
_POEM_ENDS = (
    ("So flow, small {s}, and do not wait,", "for nothing good will come too late."),
    ("And if you listen, you will know", "where all the {s} dreams must go."),
    ("The {s} is gone, the song is here,", "and comes again another year. 🌊"),
)


def story(rng: random.Random, subject: str, person: str) -> str:
    """A story about ``subject`` in which ``person`` helps."""
    parts = (_OPENINGS, _WISHES, _EVENTS, _TALKS, _TROUBLES, _ENDINGS)
    return " ".join(rng.choice(part) for part in parts).format(s=subject, p=person)


def poem(rng: random.Random, subject: str) -> str:
    """A poem of eight lines about ``subject``."""
    couplets = [rng.choice(_POEM_STARTS), *rng.sample(_POEM_MIDDLES, 2), rng.choice(_POEM_ENDS)]
    return "\n".join(line for couplet in couplets for line in couplet).format(s=subject)
