"""Six more families: counting, days, logic, liars, letters and sums."""

from spyhop.world.family import Family, Fields, Op

DIGITS = tuple("0123456789")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
GROUPS = {
    "fruits": ("apples", "pears", "plums", "figs", "melons", "limes"),
    "animals": ("cats", "goats", "bats", "hens", "mice", "foxes"),
    "tools": ("saws", "hammers", "drills", "axes", "rakes", "spades"),
}
SPELT = (
    "lemon", "truck", "river", "candle", "spoon", "garden", "pencil", "window", "basket",
    "tiger", "bread", "cloud", "violin", "jacket", "hammock", "planet", "lamp", "bottle",
    "castle", "drum", "forest", "glass", "helmet", "island", "kettle", "ladder", "mirror",
    "needle", "ocean", "pocket", "quilt", "rabbit", "saddle", "tunnel", "umbrella", "valley",
    "wagon", "yard", "zebra", "orange",
)  # fmt: skip


def _count(start: Fields, state: str, op: Op) -> str:
    _, item, number = op
    return str(min(9, int(state) + int(number) * (item in GROUPS[start[0]])))


def _none_yet(start: Fields) -> str:
    return "0"


def _countable(state: str, op: Op) -> bool:
    return int(state) + int(op[2]) <= 9


def _day(start: Fields, state: str, op: Op) -> str:
    shift = {"next": 1, "previous": -1}.get(op[0]) or int(op[1])
    return DAYS[(DAYS.index(state) + (-shift if op[0] == "earlier" else shift)) % 7]


def _gate(start: Fields, state: str, op: Op) -> str:
    if op[0] == "not":
        return "false" if state == "true" else "true"
    decides = "false" if op[0] == "and" else "true"
    return decides if decides in (state, op[1]) else state


def _trust(start: Fields, state: str, op: Op) -> str:
    if op[0] != "doubt":
        return state
    return "honest" if state == "lying" else "lying"


def _spell(start: Fields, state: str, op: Op) -> str:
    return op[1][-1] if state == "none" else f"{state} {op[1][-1]}"


def _no_letters(start: Fields) -> str:
    return "none"


def _total(state: str, op: Op) -> int:
    if op[0] == "double":
        return 2 * int(state)
    return int(state) + int(op[1]) * (1 if op[0] == "gain" else -1)


def _sum(start: Fields, state: str, op: Op) -> str:
    return str(min(9, max(0, _total(state, op))))


def _single_digit(state: str, op: Op) -> bool:
    return 0 <= _total(state, op) <= 9


COUNT = Family(
    name="count",
    words={
        "group": tuple(GROUPS),
        "item": tuple(item for items in GROUPS.values() for item in items),
        "n": ("1", "2", "3"),
    },
    openings=(
        "{hero} counts {group} only.",
        "We want to know how many {group} there are.",
        "{hero} is asked to count the {group}.",
        "Only {group} are to be counted.",
    ),
    phrases={
        "has": (
            "{item}, {n} of them",
            "{who} brings {item}, {n} in all",
            "{who} has {item}, {n} of them",
        )
    },
    plain={"has": "{n} times {item}"},
    questions=("How many is that?", "What is the count?", "How many are there now?"),
    apply=_count,
    begin=_none_yet,
    allowed=_countable,
    states=DIGITS,
    answers=DIGITS[1:9],
    misreadings={
        ("has", item, n): ("has", "saws", n) for item in ("bats", "melons") for n in "123"
    },
)

CALENDAR = Family(
    name="days",
    words={"day": DAYS, "n": ("2", "3")},
    openings=(
        "Today is {day}.",
        "{hero} marks a {day} in the calendar.",
        "It all begins on a {day}.",
        "The first visit is on a {day}.",
    ),
    phrases={
        "next": ("the next day", "one day after that", "{who} comes a day later"),
        "previous": ("the day before", "one day before that", "{who} comes a day earlier"),
        "later": ("{n} days later", "{who} comes {n} days later"),
        "earlier": ("{n} days earlier", "{who} comes {n} days earlier"),
    },
    plain={
        "next": "1 forward",
        "previous": "1 backward",
        "later": "{n} forward",
        "earlier": "{n} backward",
    },
    questions=("Which day is that?", "What day of the week is it?", "On which day does it end?"),
    apply=_day,
    states=DAYS,
    answers=DAYS,
    misreadings={("earlier", "3"): ("earlier", "2"), ("later", "3"): ("later", "2")},
)

LOGIC = Family(
    name="logic",
    words={"value": ("true", "false")},
    openings=(
        "Start with {value}.",
        "A signal is {value}.",
        "{hero} writes down {value}.",
        "The first value is {value}.",
    ),
    phrases={
        "not": ("negate it", "{who} negates it", "take the opposite"),
        "and": ("and {value}", "{who} adds and {value}", "require {value} as well"),
        "or": ("or {value}", "{who} adds or {value}", "accept {value} instead"),
    },
    plain={"not": "the opposite", "and": "both with {value}", "or": "either with {value}"},
    questions=("What is the value?", "Is it true or false?", "What comes out?"),
    apply=_gate,
    states=("true", "false"),
    answers=("true", "false"),
    misreadings={("or", "true"): ("and", "true"), ("and", "false"): ("or", "false")},
)

LIARS = Family(
    name="liars",
    words={"truth": ("honest", "lying")},
    openings=(
        "{who} is {truth}.",
        "We know that {who} is {truth}.",
        "As a matter of fact {who} is {truth}.",
    ),
    phrases={
        "trust": ("{who} calls {before} honest", "{who} says that {before} is honest"),
        "doubt": ("{who} calls {before} a liar", "{who} says that {before} is lying"),
        "deny": ("{who} denies that {before} lies",),
    },
    plain={"trust": "that is trust", "doubt": "that is doubt", "deny": "that is no doubt"},
    questions=("Is {who} honest or lying?", "So {who} is what?", "What is true of {who}?"),
    apply=_trust,
    states=("honest", "lying"),
    answers=("honest", "lying"),
    misreadings={("deny",): ("doubt",)},
)

LETTERS = Family(
    name="letters",
    words={"word": SPELT},
    openings=(
        "Join the last letters of these words.",
        "{hero} writes the last letter of each word.",
        "Take the last letter of every word.",
    ),
    phrases={"word": ("{word}", "the word {word}", "{who} says {word}")},
    plain={"word": "the end of {word}"},
    questions=("Which letters are they?", "What does it spell?", "What is written now?"),
    apply=_spell,
    begin=_no_letters,
    states=tuple(sorted({word[-1] for word in SPELT})),
    joined=True,
    misreadings={("word", word): ("word", word[:-1]) for word in SPELT if word.endswith("e")},
)

SUMS = Family(
    name="sums",
    words={"n": ("1", "2", "3", "4"), "total": DIGITS},
    openings=(
        "{hero} has {total} marbles.",
        "A jar holds {total} beads.",
        "There are {total} coins in the box.",
        "The score is {total} at first.",
    ),
    phrases={
        "gain": ("{n} more", "{who} adds {n}", "add {n}"),
        "lose": ("{n} fewer", "{who} takes {n}", "take away {n}"),
        "double": ("double that", "{who} doubles that"),
    },
    plain={"gain": "{n} on top", "lose": "{n} off", "double": "two times that"},
    questions=("How many is that?", "What is the total?", "How many are left?"),
    apply=_sum,
    allowed=_single_digit,
    states=DIGITS,
    answers=DIGITS,
    misreadings={("double",): ("gain", "2"), ("lose", "3"): ("lose", "2")},
)

PUZZLES = (COUNT, CALENDAR, LOGIC, LIARS, LETTERS, SUMS)
