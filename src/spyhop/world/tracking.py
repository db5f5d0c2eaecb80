"""The four core families: follow one thing through a few steps."""

from spyhop.world.family import Family, Fields, Op

WAYS = ("north", "east", "south", "west")
QUARTER_TURNS = {"right": 1, "back": 2, "left": 3, "stay": 0}
FLOORS = tuple("123456789")
SPOTS = ("left", "middle", "right")


def _flip(start: Fields, state: str, op: Op) -> str:
    if op[0] != "flip":
        return state
    return "tails" if state == "heads" else "heads"


def _turn(start: Fields, state: str, op: Op) -> str:
    return WAYS[(WAYS.index(state) + QUARTER_TURNS[op[0]]) % 4]


def _swap(start: Fields, state: str, op: Op) -> str:
    _, one, other = op
    return {one: other, other: one}.get(state, state)


def _differ(state: str, op: Op) -> bool:
    return op[1] != op[2]


def _floor(state: str, op: Op) -> int:
    return int(state) + int(op[1]) * (1 if op[0] == "up" else -1)


def _ride(start: Fields, state: str, op: Op) -> str:
    return str(min(9, max(1, _floor(state, op))))


def _in_house(state: str, op: Op) -> bool:
    return 1 <= _floor(state, op) <= 9


COIN = Family(
    name="coin",
    words={"side": ("heads", "tails")},
    openings=(
        "A coin shows {side}.",
        "{hero} lays down a coin with {side} up.",
        "On the table lies a coin, {side} up.",
        "The coin of {hero} starts as {side}.",
    ),
    phrases={
        "flip": ("{who} flips it", "{who} turns it over", "it is flipped"),
        "keep": ("{who} leaves it alone", "{who} only looks", "it stays put"),
        "twice": ("{who} flips it twice", "it is flipped twice"),
    },
    plain={"flip": "one flip", "keep": "no flip", "twice": "two flips"},
    questions=("Which side is up?", "What does it show now?", "Is it heads or tails?"),
    apply=_flip,
    states=("heads", "tails"),
    answers=("heads", "tails"),
    misreadings={("twice",): ("flip",)},
)

COMPASS = Family(
    name="compass",
    words={"way": WAYS},
    openings=(
        "{hero} faces {way}.",
        "{hero} looks {way} at first.",
        "A walker sets out facing {way}.",
        "A ship heads {way}.",
    ),
    phrases={
        "right": ("turn right", "a right turn", "a quarter turn clockwise"),
        "left": ("turn left", "a left turn", "a quarter turn the other way"),
        "back": ("turn around", "turn back", "a half turn"),
    },
    plain={"right": "one right", "left": "one left", "back": "two rights"},
    questions=("Which way is that?", "Which way is it now?", "Where does it point at last?"),
    apply=_turn,
    states=WAYS,
    answers=WAYS,
    misreadings={("back",): ("right",)},
)

CUPS = Family(
    name="cups",
    words={"x": SPOTS, "y": SPOTS},
    openings=(
        "Three cups stand in a row, a ball under the {x} one.",
        "{hero} hides a ball under the {x} cup.",
        "The ball is under the {x} cup.",
        "The {x} cup hides a coin.",
    ),
    phrases={
        "swap": (
            "swap {x} and {y}",
            "{who} swaps {x} and {y}",
            "trade {x} and {y}",
        ),
    },
    plain={"swap": "{x} with {y}"},
    questions=("Which cup is it under?", "Where is it now?", "Which cup hides it?"),
    apply=_swap,
    allowed=_differ,
    states=SPOTS,
    answers=SPOTS,
    misreadings={
        ("swap", "left", "right"): ("swap", "left", "middle"),
        ("swap", "right", "left"): ("swap", "middle", "left"),
    },
)

LIFT = Family(
    name="lift",
    words={"floor": FLOORS, "n": ("1", "2", "3", "4")},
    openings=(
        "The lift is on floor {floor}.",
        "{hero} gets into a lift on floor {floor}.",
        "A lift waits on floor {floor}.",
        "A lift starts from floor {floor}.",
    ),
    phrases={
        "up": ("up {n}", "it goes up {n}", "{who} takes it up {n}"),
        "down": ("down {n}", "it goes down {n}", "{who} takes it down {n}"),
    },
    plain={"up": "{n} more", "down": "{n} less"},
    questions=("Which floor is that?", "Where does it stop?", "Which floor is it on now?"),
    apply=_ride,
    allowed=_in_house,
    states=FLOORS,
    answers=FLOORS,
    misreadings={("down", "3"): ("down", "2"), ("up", "4"): ("up", "3")},
)

TRACKING = (COIN, COMPASS, CUPS, LIFT)
