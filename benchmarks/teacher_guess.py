"""Limits in tokens with prompts of all sizes: how much is used, and how full the fullest minute is.

    python benchmarks/teacher_guess.py

A prompt's tokens are known only once it is answered, so limits hold as far as they can be guessed.
The schedule is the real one, its clock and answers are simulated: 3,000 prompts, half of 15 to 60
bytes and half of 200 to 6,000, of 0.25 tokens a byte (log-normal) and some fixed ones around them.
"""

import heapq
import math
import random
from dataclasses import dataclass

from spyhop.models import Request, Sampling
from spyhop.models.endpoint_state import EndpointState
from spyhop.models.journal import State
from spyhop.models.replies import Usage
from spyhop.models.schedule import Admission, PendingBatch, PendingCall, Rejected, Schedule
from spyhop.models.service import Endpoint
from spyhop.schema import Message

MINUTE_S = 60.0
RESPONSE_TOKENS = 256
PIECES = {"words": "word and ", "digits": "12345 ", "another script": "мир "}
LIMITS = {"tokens_per_min": 120_000, "prompt_tokens_per_min": 60_000}


@dataclass(frozen=True, slots=True)
class Prompt:
    """A text, and what an endpoint will count."""

    text: str
    tokens: int


def prompts(
    num: int,
    sizes: tuple[int, int],
    fixed: int,
    noise: float,
    rate: float = 0.25,
    of: str = "words",
) -> list[Prompt]:
    """Return prompts of so many bytes, `fixed + rate * bytes` tokens each."""
    found = []
    for _ in range(num):
        size = random.randint(*sizes)
        piece = PIECES[of]
        text = piece * math.ceil(size / len(piece.encode()))
        tokens = rate * len(text.encode()) * random.lognormvariate(0, noise) + fixed
        found.append(Prompt(text, max(1, round(tokens))))
    return found


def mixed(fixed: int, noise: float, num: int = 3000) -> list[Prompt]:
    """Return short and long prompts in any order."""
    found = prompts(num // 2, (15, 60), fixed, noise) + prompts(num // 2, (200, 6000), fixed, noise)
    random.shuffle(found)
    return found


def simulate(some: list[Prompt], limit: str, latency_s: float) -> tuple[float, float]:
    """Return the share of a limit that is used (without first and last minute), and at most."""
    per_minute = LIMITS[limit]
    endpoint = Endpoint(
        url="http://x/v1", concurrency=1000, counts="reserved", **{limit: per_minute}
    )
    line = EndpointState(endpoint, "m")
    schedule = Schedule([line], None, State())
    asked, sampling = PendingBatch(num_pending=len(some)), Sampling(max_new_tokens=RESPONSE_TOKENS)
    calls = [
        PendingCall("generate", sampling, [(str(n), _request(n, one))], asked)
        for n, one in enumerate(some)
    ]
    schedule.add(calls)
    tokens = {id(call): one.tokens for call, one in zip(calls, some, strict=True)}
    reserved = RESPONSE_TOKENS if limit == "tokens_per_min" else 0
    now, coming, sent = 0.0, [], []
    while True:
        while isinstance(found := schedule.take(now), Admission):
            counted = tokens[id(found.call)]
            sent.append((now, counted + reserved))
            back = now + latency_s * random.lognormvariate(0, 0.3)
            heapq.heappush(coming, (back, len(sent), found, counted))
        assert not isinstance(found, Rejected), found.reason
        if not coming and math.isinf(found):
            return _used(sent) / per_minute, _fullest(sent) / per_minute
        if coming and coming[0][0] <= found:
            now, _, back_again, counted = heapq.heappop(coming)
            usage = Usage(counted, 0, 100, 0, True)
            back_again.endpoint.answered(back_again.reservation, usage, {}, now)
            schedule.guess.learn(back_again.call.size, counted)
            schedule.release(back_again.reservation)
        else:
            now = found


def _request(number: int, one: Prompt) -> Request:
    return Request(id=str(number), messages=[Message(role="user", content=one.text)])


def _used(sent: list[tuple[float, int]]) -> float:
    """Return the tokens a minute between the first and the last minute."""
    end = sent[-1][0]
    inner = sum(num for at, num in sent if MINUTE_S <= at < end - MINUTE_S)
    return inner / ((end - 2 * MINUTE_S) / MINUTE_S)


def _fullest(sent: list[tuple[float, int]]) -> int:
    """Return the most tokens in any 60 seconds."""
    most = total = first = 0
    for at, num in sent:
        total += num
        while sent[first][0] <= at - MINUTE_S:
            total -= sent[first][1]
            first += 1
        most = max(most, total)
    return most


def main() -> None:
    """Print both tables."""
    random.seed(1)
    print("| noise | limit | used, lowest to highest | fullest minute |")
    print("|---" * 4 + "|")
    for noise in (0.0, 0.1, 0.2):
        for limit in LIMITS:
            found = [
                simulate(mixed(fixed, noise), limit, latency_s)
                for fixed in (8, 25, 60, 200)
                for latency_s in (2, 10, 20)
            ]
            used, fullest = zip(*found, strict=True)
            told = f"{min(used):.1%} to {max(used):.1%} | {max(fullest):.1%}"
            print(f"| {noise:.0%} | {limit} | {told} |")
    print("\n| from words to | limit | fullest minute after 10 s | after 30 s |")
    print("|---" * 4 + "|")
    words = prompts(2000, (200, 2000), 8, 0.1)
    for of in PIECES:
        for limit in LIMITS:
            some = words + prompts(2000, (200, 2000), 8, 0.1, rate=0.6, of=of)
            soon, late = (simulate(some, limit, latency_s)[1] for latency_s in (10, 30))
            name = "words of 0.6 tokens a byte" if of == "words" else of
            print(f"| {name} | {limit} | {soon:.1%} | {late:.1%} |")


if __name__ == "__main__":
    main()
