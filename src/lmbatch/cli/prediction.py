"""A prediction in words: before the run, and beside what happened."""

from __future__ import annotations

import click

from lmbatch.cli.common import human_bytes, human_seconds, print_table
from lmbatch.estimate.goodput import Goodput
from lmbatch.estimate.prediction import Prediction
from lmbatch.estimate.published import Beside

_PARTS = {
    "weights": "float32",
    "gradients": "float32",
    "optimizer": "AdamW's two moments, and ZeRO's float32 slice",
    "buffers": "gradients and weights on their way between processes",
    "copies": "16-bit weights of autocast",
    "activations": "kept for the backward pass",
    "logits": "of cross-entropy's backward pass",
    "recomputed": "a block that is computed again, when the logits are gone",
    "update": "temporaries of the optimizer's step, when the passes are over",
    "context": "CUDA, cuBLAS, NCCL (assumed)",
    "reserve": "fragmentation (assumed)",
}


def print_prediction(found: Prediction, corpus: str) -> None:
    """Tables of memory, time, and checkpoints, and what does not fit."""
    shape = found.shape
    click.echo(
        f"{shape.type}: {shape.parameters:,} parameters ({shape.parameters - shape.embedding:,} without embeddings), "
        f"vocabulary {shape.vocabulary:,} ({corpus})"
    )
    click.echo(
        f"{found.world} × {found.device} on {found.nodes} {'node' if found.nodes == 1 else 'nodes'}, {found.engine}, "
        f"{found.precision}, batch {found.batch} × {found.sequence} tokens in micro-batches of {found.micro}"
    )
    _print_memory(found)
    _print_time(found)
    _print_saves(found)
    for warning in found.warnings:
        click.echo(f"warning: {warning}")


def _print_memory(found: Prediction) -> None:
    parts = found.memory.model_dump()
    print_table(
        ("memory of one process", "", ""),
        [(name, human_bytes(parts[name]), what) for name, what in _PARTS.items() if parts[name]]
        + [("peak", human_bytes(found.memory.total), _room(found))],
    )
    if found.changes:
        click.echo("it fits with, the cheapest first:")
        for change in found.changes:
            click.echo(f"  {change}")
    host = ", ".join(f"{name} {human_bytes(size)}" for name, size in found.host.items())
    click.echo(f"memory of a node besides: {host}")


def _room(found: Prediction) -> str:
    if found.room is None:
        return "the device's memory is not known"
    verdict = "fits into" if found.fits else "DOES NOT FIT into"
    largest = f"; the largest batch.micro that does: {found.largest_micro}" if found.largest_micro else ""
    return f"{verdict} the {human_bytes(found.room)} that {found.device} has for it{largest}"


def _print_time(found: Prediction) -> None:
    epochs = f", {found.epochs:.2f} epochs" if found.epochs is not None else ""
    rows = [
        ("length", f"{found.steps:,} steps", f"{found.tokens:,} tokens{epochs}"),
        ("work", f"{found.flops_per_token / 1e6:,.0f} MFLOP/token", "6·N + 12·L·H·Q·T"),
    ]
    if found.tokens_per_second is None or found.seconds is None or found.step_seconds is None:
        rows.append(("speed", "not known", found.source))
    else:
        mfu = f"; MFU {found.mfu:.1%}" if found.mfu is not None and found.source == "probe" else ""
        rows += [
            ("speed", f"{found.tokens_per_second:,.0f} tokens/s", f"{found.source}{mfu}"),
            ("a step", human_seconds(found.step_seconds), f"{found.batch * found.sequence:,} tokens"),
            ("time", _hours(found.seconds), f"{found.seconds / 3600 * found.world:,.1f} GPU hours"
             if found.device != "cpu" else ""),
        ]  # fmt: skip
    print_table(("time", "", ""), rows)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else human_seconds(seconds)


def _print_saves(found: Prediction) -> None:
    saves = found.saving
    rows = [
        ("a checkpoint", human_bytes(saves.bytes), "weights and two moments in float32"),
        ("a save", human_seconds(saves.seconds), f"training waits {human_seconds(saves.stall)} of it"),
        ("in the whole run", f"{saves.count:,} saves", f"{human_bytes(saves.written)} written, "
         f"{human_bytes(saves.kept)} kept"),
    ]  # fmt: skip
    if saves.requests:
        rows.append(
            ("copies in the store", f"{saves.requests:,} writes", f"{human_seconds(saves.upload_seconds)} each")
        )
    if found.notice_needed is not None:
        given = f"; the site gives {found.notice_given:.0f} s" if found.notice_given is not None else ""
        copy = f"; {human_seconds(saves.upload_seconds)} more for its copy" if saves.upload_seconds else ""
        rows.append(("notice of a stop", human_seconds(found.notice_needed),
                     f"the step, a save under way, its own, 30 s of Slurm{copy}{given}"))  # fmt: skip
    rows += _losses(found)
    rows += _costs(found)
    print_table(("checkpoints", "", ""), rows)


def _losses(found: Prediction) -> list[tuple[str, str, str]]:
    rate, told, untold = found.preemptions_per_day, found.with_notice, found.without_notice
    if not rate or told is None or untold is None:
        return []
    rows = [
        (f"{rate:g} preemptions a day", f"{told.share:.1%} goodput", _told(told, "with notice no step is lost")),
        (
            "… without notice",
            f"{untold.share:.1%} goodput",
            _told(untold, f"{untold.steps_lost or 0:,.0f} steps again"),
        ),
    ]
    if found.best_save_every is not None:
        why = f"√(2·C·M), Young and Daly; the config has {found.save_every:,}"
        rows.append(("best save.every", f"{found.best_save_every:,}", why))
    return rows


def _told(goodput: Goodput, what: str) -> str:
    if goodput.seconds is None or goodput.preemptions is None:
        return "it would never end"
    return f"{goodput.preemptions:,.0f} in {goodput.seconds / 3600:,.1f} h; {what}"


def _costs(found: Prediction) -> list[tuple[str, str, str]]:
    costs = found.costs
    if costs is None:
        return []
    given = (
        ("cost of the GPUs", costs.compute, f"{costs.gpu_hours:,.1f} GPU hours"),
        ("cost of what is kept", costs.stored_per_month, "a month"),
        ("cost of the writes", costs.writes, "in all"),
    )
    return [(name, f"{value:,.2f}", what) for name, value, what in given if value is not None]


def print_published(theirs: Beside, found: Prediction) -> None:
    """The published run beside ours, with the arithmetic."""
    run = theirs.published
    mfu = f", {theirs.mfu:.1%} of its peak" if theirs.mfu is not None else ""
    click.echo(
        f"published ({run.what}): {run.steps:,} steps × {run.batch} × {run.sequence} = {run.tokens:,} tokens in "
        f"{run.hours:g} h on one {run.device}: {theirs.tokens_per_second:,.0f} tokens/s{mfu}"
    )
    if theirs.our_hours is not None:
        click.echo(
            f"the same tokens here at {found.tokens_per_second or 0:,.0f} tokens/s ({found.source}): "
            f"{theirs.our_hours:.1f} h"
        )
