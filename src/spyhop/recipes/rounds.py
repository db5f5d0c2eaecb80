"""The nodes of Humpback's rounds: data, backward model, ratings, students, promotions."""

from dataclasses import dataclass, field

from spyhop.augment import backtranslate, format_pairs, reverse_pairs
from spyhop.collect import fetch, read_seeds
from spyhop.corpus import SampleConfig, sample
from spyhop.curate import (
    SplitConfig,
    check_pair_count,
    gate,
    keep,
    needs_repeats,
    rate,
    rate_by_likelihood,
    read_labels,
    split,
    with_threshold,
)
from spyhop.evaluate import HeldOutConfig, measure, score_held_out
from spyhop.models import Local
from spyhop.recipe.graph import Chosen, Node, Recipe, Ref, Source, Use
from spyhop.recipe.promote import promote
from spyhop.recipes.humpback_config import HumpbackConfig
from spyhop.recipes.inputs import add_base, add_items, served
from spyhop.recipes.mixture import Place
from spyhop.recipes.segments import add_segments, expand
from spyhop.train import TuneConfig, tune

Model = Node | Source | Chosen
STUDENT = "student"
"""What every trained model is called when it is asked: its weights tell it apart, and a round that
was not promoted asks nothing again."""


@dataclass(frozen=True, slots=True)
class Data:
    """What the rounds work on."""

    items: list[Ref]
    seeds: Node
    """Seed pairs without the held-out ones."""
    held_out: list[Ref]
    """The held-out seed pairs as rows to weigh; empty where none are kept."""
    base: Node | Source
    segments: list[Node]
    """From pages to what is backtranslated."""
    backward: Node
    augmented: Node
    labels: Node | None


@dataclass(frozen=True, slots=True)
class Scored:
    """A model's scores: at most one node for answers, one for held-out likelihood."""

    accuracy: list[Ref]
    held_out: list[Ref]


@dataclass(slots=True)
class Rounds:
    """What the rounds made; place n of `models` and `scores` is that of round n."""

    models: list[Node]
    scores: list[Scored]
    best: Model
    """What the last promotion chose."""
    rated: list[Node] = field(default_factory=list)
    gates: list[Node] = field(default_factory=list)
    kept: list[Node] = field(default_factory=list)
    promotions: list[Node] = field(default_factory=list)


def add_data(r: Recipe, config: HumpbackConfig) -> Data:
    """Add the nodes from files to backtranslated pairs."""
    items: list[Ref] = [add_items(r, suite) for suite in config.suites]
    sets: list[Ref] = [
        r.add(f"seeds-{n}", read_seeds, each.read, folder=add_folder(r, each, f"seeds-{n}"))
        for n, each in enumerate(config.seeds, 1)
    ]
    rest = SplitConfig(
        held_out_every_nth=config.held_out_every_nth, contamination=config.pages.contamination
    )
    clean: dict[str, Ref | list[Ref]] = {"items": items} if items else {}
    seed_pairs = r.add("seeds", split, rest, pairs=sets, **clean)
    held_out: list[Ref] = []
    if config.held_out_every_nth:
        held = rest.model_copy(update={"split": "held_out"})
        pairs = r.add("held-out", split, held, pairs=sets, **clean)
        held_out.append(r.add("held-out.rows", format_pairs, config.forward, pairs=[pairs]))
    segments = _segments(r, config, items)
    base = add_base(r, config.student)
    reverse = r.add("reversed", reverse_pairs, config.backtranslate.asked, pairs=[seed_pairs])
    how = config.train_seed or config.train
    backward = r.add("backward", tune, how, base=base, answers=[reverse])
    writer = Use(Local(name="backward"), backward)
    augmented = r.add(
        "augmented", backtranslate, config.backtranslate, segments=segments[-1], model=writer
    )
    words = None
    if config.labels is not None:
        folder = Source(config.labels)
        words = r.add("labels", read_labels, config.read_labels, folder=folder, pairs=augmented)
    if config.rate.by == "judge" and needs_repeats(config.gate, config.keep):
        r.add("enough", check_pair_count, config.gate, pairs=augmented)
    return Data(items, seed_pairs, held_out, base, segments, backward, augmented, words)


def add_rounds(r: Recipe, config: HumpbackConfig, data: Data) -> Rounds:
    """Add the rounds, unrolled: rate with the best student so far, keep, train, compare."""
    how = config.train_seed or config.train
    first = add_student(r, config, "m0", data.base, [data.seeds], how)
    rounds = Rounds([first], [add_scores(r, config, data, "m0", first)], first)
    best_scores = rounds.scores[0]
    for n in range(1, config.rounds + 1):
        rated = _rated(r, config, data, n, rounds.best)
        known: dict[str, Ref] = {} if data.labels is None else {"labels": data.labels}
        passed = r.add(
            f"gate-{n}", gate, with_threshold(config.gate, config.keep), rated=rated, **known
        )
        kept = r.add(f"kept-{n}", keep, config.keep, rated=rated, gate=passed)
        model = add_student(r, config, f"m{n}", data.base, [data.seeds, kept], config.train)
        scores = add_scores(r, config, data, f"m{n}", model)
        by = _promotion(r, config, n, best_scores, scores)
        best_scores = _either(by, best_scores, scores)
        rounds.best = Chosen(by, before=rounds.best, after=model)
        rounds.models.append(model)
        rounds.scores.append(scores)
        rounds.rated.append(rated)
        rounds.gates.append(passed)
        rounds.kept.append(kept)
        rounds.promotions.append(by)
    return rounds


def add_student(
    r: Recipe,
    config: HumpbackConfig,
    name: str,
    base: Node | Source,
    pairs: list[Ref] | list[Node],
    how: TuneConfig,
) -> Node:
    """Add a student and the rows that it reads: pairs under the system messages of their tags."""
    rows = r.add(f"{name}.rows", format_pairs, config.forward, pairs=list[Ref](pairs))
    return r.add(name, tune, how, base=base, answers=[rows])


def add_scores(
    r: Recipe,
    config: HumpbackConfig,
    data: Data,
    name: str,
    model: Node | Source,
    message: str | None = None,
) -> Scored:
    """Add what a model scores on items and on held-out responses; `message` replaces the tags."""
    under = config.asked_under if message is None else message
    use = Use(Local(name=STUDENT), model)
    asked = config.measure.model_copy(update={"system_message": under})
    asked = asked.for_tasks(suite.task for suite in config.suites)
    accuracy: list[Ref] = []
    held_out: list[Ref] = []
    if data.items:
        accuracy.append(r.add(f"scores-{name}", measure, asked, items=data.items, model=use))
    if data.held_out:
        settings = HeldOutConfig(system_message=under)
        held_out.append(
            r.add(f"held-out-{name}", score_held_out, settings, answers=data.held_out, model=use)
        )
    return Scored(accuracy, held_out)


def add_folder(r: Recipe, place: Place, name: str) -> Node | Source:
    """Return where files are; those elsewhere become the node `fetched-<name>`."""
    if place.path is not None:
        return Source(place.path)
    assert place.fetch is not None
    return r.add(f"fetched-{name}", fetch, place.fetch)


def _segments(r: Recipe, config: HumpbackConfig, items: list[Ref]) -> list[Node]:
    pages = config.pages
    found: list[Ref] = [Source(path) for given in pages.inputs for path in expand(given)]
    if pages.fetch is not None:
        found = [r.add("fetched-pages", fetch, pages.fetch)]
    steps = add_segments(r, pages.segment, pages.near, pages.contamination, found, items)
    if pages.num_segments is not None:
        size = SampleConfig(num_rows=pages.num_segments)
        steps.append(r.add("sampled", sample, size, segments=steps[-1]))
    return steps


def _rated(r: Recipe, config: HumpbackConfig, data: Data, n: int, student: Model) -> Node:
    rating = config.rate
    judge = Use(Local(name=STUDENT), student) if rating.file is None else served(rating.file)
    if rating.by == "judge":
        return r.add(f"rated-{n}", rate, rating.judge, pairs=data.augmented, judge=judge)
    under = rating.likelihood.system_message or config.forward.seed_message
    how = rating.likelihood.model_copy(update={"system_message": under})
    return r.add(f"rated-{n}", rate_by_likelihood, how, pairs=data.augmented, model=judge)


def _promotion(r: Recipe, config: HumpbackConfig, n: int, before: Scored, after: Scored) -> Node:
    given = {
        name: list[Ref](each.accuracy if config.promote_by == "accuracy" else each.held_out)
        for name, each in (("before", before), ("after", after))
    }
    known = given if given["before"] else {}
    return r.add(f"promoted-{n}", promote, config.promote, **known)


def _either(by: Node, before: Scored, after: Scored) -> Scored:
    """Return the scores of whichever model a promotion chooses."""

    def choose(one: list[Ref], other: list[Ref]) -> list[Ref]:
        found: list[Ref] = []
        for first, second in zip(one, other, strict=True):
            assert isinstance(first, Node | Chosen) and isinstance(second, Node)
            found.append(Chosen(by, before=first, after=second))
        return found

    return Scored(choose(before.accuracy, after.accuracy), choose(before.held_out, after.held_out))
