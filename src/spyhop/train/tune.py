"""Train on answers and write a Hugging Face folder; only response tokens have loss.

Source: Orca (arXiv:2306.02707), section 3.2.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from spyhop.models import Model
from spyhop.models.local import pick_device, pick_dtype
from spyhop.render import Renderer
from spyhop.schema import ModelError, TrainingError
from spyhop.stage import FOLDER, Calls, Context, Estimate, stage, sum_estimates
from spyhop.store import Artifact
from spyhop.store.artifact import LOGS
from spyhop.train import rank
from spyhop.train.base import METRICS, check_adapter, open_tokenizer
from spyhop.train.batches import RowNumbers, plan_batches, plan_packs
from spyhop.train.config import DivergenceConfig, DPOConfig, HeldOutConfig, TuneConfig
from spyhop.train.cost import CORE_FLOPS, FEWEST_STEPS, NF4_BYTES, Shape, state_bytes
from spyhop.train.distributed import Group
from spyhop.train.divergence import Divergence, FolderTeacher, ServedTeacher
from spyhop.train.encoding import SAMPLE_ROWS, encoding_of, masked_row, write_sample
from spyhop.train.loop import SNAPSHOTS, SPEED, TrainingJob, check_trackers, train
from spyhop.train.objective import CrossEntropy, Objective
from spyhop.train.optimizer import with_defaults
from spyhop.train.preference import DPO, check_pairs, read_reference
from spyhop.train.release import LICENCE, TEACHER, UNKNOWN
from spyhop.train.rows import TokenRows, none_left, tokenise

TOKENS_PER_ROW = 200
TOKENS_PER_S = 25_000
"""Planning figures: default mean row length, and speed of a 0.1 M model on one core."""


def plan_tune(
    config: TuneConfig,
    base: Estimate,
    answers: Mapping[str, Estimate],
    held_out: Mapping[str, Estimate] | None = None,
    reference: Estimate | None = None,
    teacher: Estimate | None = None,
) -> Estimate:
    """Return tokens, operations, memory and seconds, from the budget and the rows' length.

    A teacher's folder is another model in memory, and a server has a call for each response.
    """
    pool = sum_estimates(answers.values())
    how, calls = config.objective, {}
    own_tokens = how.max_new_tokens if isinstance(how, DivergenceConfig) else 0
    row_tokens = (pool.row_tokens or TOKENS_PER_ROW) + own_tokens
    tokens = config.tokens or int((config.epochs or 0) * pool.rows * row_tokens)
    if teacher is not None and teacher.path is None and not teacher.parameters:
        num = round(tokens / row_tokens)
        calls = {"teacher": Calls(requests=num, prompt_tokens=tokens, response_tokens=num,
                                  most_response_tokens=num)}  # fmt: skip
    shape = Shape(base.parameters, base.num_layers, base.hidden_size)
    if not shape.parameters:
        if base.path is not None and base.path.exists():
            raise ModelError(
                f"{base.path}: not a Hugging Face model folder: it has no config.json with "
                "safetensors weights"
            )
        return Estimate(trained_tokens=tokens, calls=calls, seconds=tokens / TOKENS_PER_S)
    adapter = config.adapter
    trained = 2 * adapter.rank * shape.hidden_size * 7 * shape.num_layers if adapter else None
    is_small = adapter is not None and adapter.quantize is not None
    flops = tokens * shape.flops_per_token(row_tokens)
    scoring = teacher.parameters if teacher is not None else 0
    if own_tokens:  # read by the teacher; writing them takes about as long as training on them
        flops += 2 * tokens * scoring + flops * own_tokens / row_tokens
    return Estimate(
        trained_tokens=tokens,
        calls=calls,
        seconds=max(tokens / TOKENS_PER_S, flops / CORE_FLOPS),
        parameters=shape.parameters,
        num_layers=shape.num_layers,
        hidden_size=shape.hidden_size,
        flops=flops,
        state_bytes=state_bytes(shape, trained, frozen_bytes=NF4_BYTES if is_small else 4)
        + 4 * scoring,
    )


@stage(version=5, writes=FOLDER, plan=plan_tune, needs="local")
def tune(
    ctx: Context,
    config: TuneConfig,
    *,
    base: Artifact,
    answers: Mapping[str, Artifact],
    held_out: Mapping[str, Artifact] | None = None,
    reference: Artifact | None = None,
    teacher: Artifact | Model | None = None,
) -> None:
    """Train `base` on the answers and write the result as a Hugging Face folder.

    With the objective DPO, the answers are preferences, and `reference` has their scores
    (`score_pairs`). With a divergence, they are prompts, or answers whose last response is not
    read; `teacher` is a folder or a served model of the base's tokenizer, by default the base.

    Guarantees: the loss is the sum over supervised tokens divided by their number in the global
    batch (G6), so the gradient does not depend on microbatches, packing or the number of processes;
    a killed run continues from its last checkpoint to the same weights, bit by bit on a processor.
    """
    _, num_peers = rank.launched()
    ranks = num_peers if num_peers > 1 else ctx.runtime.gpus
    if ranks > 1 and config.optimizer.muon_learning_rate is not None:
        raise TrainingError("optimizer.muon_learning_rate works in one process; remove it")
    if config.adapter is not None:
        check_adapter(config.adapter, ranks, pick_device(ctx.runtime.device))
    check_trackers(ctx.runtime)
    if isinstance(config.objective, DivergenceConfig) and ranks > 1:
        raise TrainingError("objective.divergence works in one process; set runtime.gpus = 1")
    renderer = Renderer(*open_tokenizer(base.path, config))
    encoding = encoding_of(renderer, base.path, config)
    rows = tokenise(ctx, [*answers.values(), *(held_out or {}).values()], encoding)
    trained, looked_at = _parted(config, rows, len(answers))
    ctx.count("rows/trained", num_trained := sum(map(len, trained)))
    ctx.count("rows/held_out", len(looked_at))
    if not num_trained:
        raise none_left(ctx, len(looked_at))
    if not len(looked_at) and config.held_out != HeldOutConfig():
        raise TrainingError("no held-out rows: set held_out.frac, or give a held_out input")
    steps = _steps(ctx, config, rows, trained)
    optimizer = with_defaults(
        config.optimizer, len(steps), is_adapter=config.adapter is not None,
        has_pairs=isinstance(config.objective, DPOConfig),
    )  # fmt: skip
    precision = str(pick_dtype(config.precision, base.path)).removeprefix("torch.")
    resolved = config.model_copy(update={"optimizer": optimizer, "precision": precision})
    objective = _objective(ctx, resolved, rows, renderer, base.path, reference, teacher or base)
    job = TrainingJob(
        config=resolved, runtime=ctx.runtime, base=base.path.absolute(),
        state=ctx.state.absolute(), out=ctx.out.absolute(), rows=rows, steps=steps,
        held_out=looked_at, objective=objective,
    )  # fmt: skip
    if ranks == 1:
        outcome = train(job, Group(pick_device(ctx.runtime.device)), ctx.report)
    elif num_peers > 1:
        outcome = rank.train_with_peers(job, ctx.report)
    else:
        outcome = rank.train_together(job, ctx.report)
    for text in outcome.notices:
        ctx.notice(text)
    for name, num in outcome.counts.items():
        ctx.count(name, num)
    by = ""
    if isinstance(config.objective, DivergenceConfig):
        by = teacher.label if isinstance(teacher, Model) else "a teacher's weights"
        ctx.count("asked/prompt_tokens", outcome.counts["tokens"])  # the teacher writes nothing
        ctx.use("prompt_tokens", 0 if isinstance(teacher, Model) else outcome.counts["tokens"])
    _count_read(ctx, list(answers.values()), rows, steps[: outcome.counts["steps"]], by)
    is_trained = set(np.concatenate(trained).tolist())
    shown = [number for number in rows.ids_of if number in is_trained][:SAMPLE_ROWS]
    sample = [masked_row(rows.ids_of[row], *rows.row(row), renderer) for row in shown]
    write_sample(ctx.out, sample)
    if (ctx.state / SNAPSHOTS).is_dir():  # links: after a kill, the next run needs them there
        shutil.copytree(ctx.state / SNAPSHOTS, ctx.out / SNAPSHOTS, copy_function=os.link)


def _objective(
    ctx: Context,
    config: TuneConfig,
    rows: TokenRows,
    renderer: Renderer,
    base: Path,
    reference: Artifact | None,
    teacher: Artifact | Model,
) -> Callable[[TokenRows], Objective]:
    how, longest = config.objective, int(rows.lengths.max())
    if isinstance(how, DivergenceConfig):
        longest += how.max_new_tokens
        scorer = (
            FolderTeacher(teacher.path, base, config, ctx.runtime, longest)
            if isinstance(teacher, Artifact)
            else ServedTeacher(teacher, base, longest)
        )
        if (most := int(rows.ids.max())) >= scorer.num_tokens:
            raise TrainingError(
                f"the teacher's tokenizer has {scorer.num_tokens} tokens, and the prompts have "
                f"token {most}: use a format that both know, or another teacher"
            )
        return partial(
            Divergence, config=how, teacher=scorer, renderer=renderer, runtime=ctx.runtime,
            is_half=config.precision == "bfloat16",
        )  # fmt: skip
    if how is None:
        if rows.splits.any():
            raise TrainingError("the rows are preferences; set objective, or read their answers")
        return CrossEntropy
    check_pairs(rows)
    if reference is None:
        raise TrainingError("objective needs the input `reference`: scores of the pairs")
    return partial(DPO, config=how, reference=read_reference(rows, reference))


def _count_read(
    ctx: Context,
    answers: Sequence[Artifact],
    rows: TokenRows,
    steps: Sequence[RowNumbers],
    teacher: str,
) -> None:
    """Count the rows that the finished steps read, and who answered them under which licence.

    Of prompts, the answers are not read; `teacher` scored the student's own.
    """
    read = np.unique(np.concatenate(steps))
    columns = {"licence": LICENCE}
    if not teacher:
        columns["chosen_origin" if rows.splits.any() else "model"] = TEACHER
    for artifact, (first, last) in zip(answers, pairwise(rows.inputs), strict=False):
        numbers = np.unique(rows.row_numbers[read[(read >= first) & (read < last)]])
        ctx.count("rows/read", len(numbers))
        if teacher:
            ctx.count(f"{TEACHER}{teacher}", len(numbers))
        start = 0
        for batch in artifact.batches([*columns]):
            some = numbers[(numbers >= start) & (numbers < start + batch.num_rows)] - start
            for column in batch.schema.names:
                for each in pc.value_counts(batch.column(column).take(pa.array(some))).to_pylist():
                    ctx.count(f"{columns[column]}{each['values'] or UNKNOWN}", each["counts"])
            start += batch.num_rows


def _parted(
    config: TuneConfig, rows: TokenRows, num_answers: int
) -> tuple[list[RowNumbers], RowNumbers]:
    """Return the rows of each input to train on, and those held out."""
    random = np.random.default_rng([config.seed, 1])
    trained, held_out = [], []
    for place, (first, last) in enumerate(pairwise(rows.inputs)):
        some = np.arange(first, last)
        num = round(config.held_out.frac * len(some)) if place < num_answers else len(some)
        is_out = np.zeros(len(some), dtype=np.bool_)
        is_out[random.permutation(len(some))[:num]] = True
        held_out.append(some[is_out])
        if place < num_answers:
            trained.append(some[~is_out])
    return trained, np.concatenate(held_out)


def _steps(
    ctx: Context, config: TuneConfig, rows: TokenRows, trained: list[RowNumbers]
) -> list[RowNumbers]:
    """Return the rows of every global batch."""
    order = np.concatenate(trained)
    lengths = rows.lengths
    if isinstance(config.objective, DivergenceConfig):  # the student's prompt, the longest response
        own = np.where(rows.splits > 0, rows.splits, lengths)
        lengths = own + config.objective.max_new_tokens
    lengths = lengths[order]
    inputs = [0, *np.cumsum([len(some) for some in trained]).tolist()]
    budgets = _budgets(config, lengths, inputs)
    if config.batches == "by_length":
        steps = plan_batches(
            lengths, inputs, budgets=budgets, batch_tokens=config.batch_tokens, seed=config.seed
        )
    else:
        packs = plan_packs(
            lengths, inputs, budgets=budgets, batch_tokens=config.batch_tokens, seed=config.seed,
            capacity=config.max_tokens, packing=config.batches,
        )  # fmt: skip
        steps = [np.concatenate(some) for some in packs]
        drawn = np.concatenate([np.empty(0, np.int64), *steps])
        ctx.count("packs", num_packs := sum(map(len, packs)))
        full = max(1, num_packs * config.max_tokens)
        ctx.notice(
            f"packed {len(drawn) / max(1, num_packs):.2f} rows in a sequence of "
            f"{config.max_tokens:,} tokens (the Orca paper: 2.7); "
            f"{1 - int(lengths[drawn].sum()) / full:.2%} of it is padding"
        )
    if not steps:
        raise TrainingError("the training budget is less than one token; raise tokens or epochs")
    if (warmup := config.optimizer.warmup_steps or 0) >= len(steps):
        ctx.notice(
            f"warmup_steps = {warmup} is not below the {len(steps)} steps of the training: the "
            "peak learning rate is never reached; lower it or batch_tokens, or train longer"
        )
    if len(steps) < FEWEST_STEPS:
        ctx.notice(
            f"{len(steps)} training steps are too few to learn from; lower batch_tokens, or train "
            "for more epochs"
        )
    return [order[step] for step in steps]


def _budgets(config: TuneConfig, lengths: RowNumbers, inputs: list[int]) -> list[int]:
    sizes = [int(lengths[first:last].sum()) for first, last in pairwise(inputs)]
    total = config.tokens or int((config.epochs or 0) * sum(sizes))
    if config.shares is None:
        return [total * size // sum(sizes) for size in sizes]
    if len(config.shares) != len(sizes):
        raise TrainingError(f"shares has {len(config.shares)} values for {len(sizes)} inputs")
    budgets = [int(total * share / sum(config.shares)) for share in config.shares]
    for number, (budget, size) in enumerate(zip(budgets, sizes, strict=True), 1):
        if budget and not size:
            raise TrainingError(f"input {number} has a share, but no usable training rows")
    return budgets


def read_metrics(student: Artifact) -> dict[str, Any]:
    """Return `steps`, `tokens`, `losses` (per step) and `held_out` (step, loss) of a training."""
    return dict(json.loads(student.file(METRICS).read_text()))


def read_speed(student: Artifact) -> dict[str, float]:
    """Return `seconds` and `tokens_per_s` of a training, including all resumed runs."""
    return dict(json.loads((student.path / LOGS / SPEED).read_text()))
