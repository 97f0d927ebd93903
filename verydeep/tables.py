"""What the verbs print for people."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from verydeep.evaluation.protocols import PROTOCOLS
from verydeep.networks.arithmetic import LayerDescription, NetworkDescription, StackDescription
from verydeep.pages import interval, percent, points
from verydeep.progress import duration

WIDTH_IN_FILES = 120
"""Characters in a line where there is no terminal to ask."""


def show(figures: dict[str, Any], file: Path | None, *for_people: Table | str) -> None:
    """Prints for people, and writes the figures as JSON where they are wanted."""
    if file is not None and str(file) == "-":
        print(json.dumps(figures, indent=2, ensure_ascii=False))
        return
    if file is not None:
        from verydeep import atomic

        atomic.write_json(file, figures)
    console = Console(highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_IN_FILES
    for item in for_people:
        console.print(item, soft_wrap=isinstance(item, str), markup=not isinstance(item, str))


def show_report(page: Path, file: Path | None) -> None:
    """Says where a page is, not among figures that go to standard output."""
    print(f"report: {page}", file=sys.stderr if str(file) == "-" else sys.stdout)


def layer_table(network: NetworkDescription) -> Table:
    """One network, a row per layer."""
    table = table_with(
        f"{network.network} on {network.input} x {network.input} pixels, {network.classes} classes",
        left=("layer", "output"),
        right=("parameters", "mult-adds", "memory", "sees"),
    )
    for layer in network.layers:
        ends_stage = layer.kind == "pool" or layer is network.layers[-1]
        table.add_row(
            layer.name,
            " x ".join(map(str, layer.output)),
            f"{layer.parameters:,}",
            f"{layer.macs / 1e6:,.1f} M",
            f"{layer.activation_bytes / 1e6:,.2f} MB",
            f"{layer.receptive_field} px",
            end_section=ends_stage,
        )
    table.add_row(
        f"{network.weight_layers} layers",
        "with weights",
        f"{network.parameters:,}",
        f"{network.macs / 1e6:,.1f} M",
        f"{network.activation_bytes / 1e6:,.2f} MB",
        "",
        style="bold",
    )
    return table


def networks_table(networks: Sequence[NetworkDescription]) -> Table:
    """Several networks side by side, as in Table 1, with what they cost."""
    first = networks[0]
    table = table_with(
        f"Kernel side and channels of every convolution; {first.input} x {first.input} pixels, {first.classes} classes",
        left=("",),
        right=[network.network for network in networks],
    )
    stages = sum(layer.kind == "pool" for layer in first.layers)
    for stage in range(1, stages + 1):
        cells = ["\n".join(_stage(network, stage)) for network in networks]
        table.add_row(f"conv{stage}", *cells, end_section=True)
    rows = {
        "weight layers": [str(network.weight_layers) for network in networks],
        "parameters, M": [f"{network.parameters / 1e6:,.1f}" for network in networks],
        "mult-adds, G": [f"{network.macs / 1e9:,.2f}" for network in networks],
        "activations, MB": [f"{network.activation_bytes / 1e6:,.1f}" for network in networks],
        "pool5 sees, px": [str(network.receptive_field) for network in networks],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)
    return table


def stack_table(stack: StackDescription) -> Table:
    """A stack of convolutions beside the one layer that sees as much."""
    side = stack.receptive_field
    names = " + ".join(f"{kernel} x {kernel}" for kernel in stack.kernels)
    table = table_with(f"C = {stack.channels} channels", left=("",), right=("stack", "one layer"))
    table.add_row("kernels", names, f"{side} x {side}")
    table.add_row("receptive field", str(side), str(side))
    table.add_row("weights", f"{stack.weights_per_square_channel} C^2", f"{side**2} C^2")
    table.add_row("", f"{stack.weights:,}", f"{stack.single_weights:,} ({stack.single_extra_percent:+.0f}%)")
    table.add_row("non-linearities", str(len(stack.kernels)), "1")
    return table


SHOWN = 10
"""Of long lists; the rest is in the JSON."""


def evaluation_tables(found: Mapping[str, Any]) -> list[Table]:
    """Errors of runs and of their fusion, how they compare, and of which classes they are; `Evaluation.to_dict`."""
    table = table_with(
        f"{found['source']}, {found['split']}: {found['n']:,} images, {PROTOCOLS[found['protocol']]}",
        left=("run", "test Q"),
        right=("top-1 error, %", "95% interval", "top-5 error, %", "95% interval"),
    )
    fused = [{**found, "name": "fused"}] if len(found["per_run"]) > 1 else []
    for errors in [*found["per_run"], *fused]:
        table.add_row(
            Text(errors["name"]),
            ", ".join(map(str, errors["scales"])),
            f"{errors['top1_error']:.2f}",
            interval(errors["top1_error_ci95"], 2),
            percent(errors["top5_error"], 2),
            interval(errors["top5_error_ci95"], 2),
        )
    if found["unusable"]:
        table.title = Text(f"{table.title}, without {len(found['unusable']):,} that cannot be used")
    calibration = (
        f"Expected calibration error{' of the fused runs' if fused else ''} "
        f"{found['calibration']['expected_calibration_error']:.2f}%."
    )
    table.caption = Text(" ".join([calibration, *found["notes"]]))
    compared = [comparison_table(found["comparisons"])] if found["comparisons"] else []
    return [table, *compared, *_worst_classes(found)]


def comparison_table(comparisons: Sequence[Mapping[str, Any]], *, errors: str = "top-1 errors") -> Table:
    """Pairs of results on the same images, as `Comparison.to_dict` gives them."""
    table = table_with(
        f"Compared on the same {comparisons[0]['n']:,} images",
        left=("first", "second"),
        right=("difference, points", "95% interval", "only first wrong", "only second wrong", "p"),
    )
    for pair in comparisons:
        table.add_row(
            Text(pair["first"]),
            Text(pair["second"]),
            points(pair["difference"], 2),
            interval(pair["difference_ci95"], 2, "+"),
            f"{pair['only_first_wrong']:,}",
            f"{pair['only_second_wrong']:,}",
            f"{pair['p_value']:.2g}",
        )
    table.caption = Text(
        f"Difference of the {errors}, first minus second: below 0 the first errs less. Exact McNemar test"
        + (", not corrected for several comparisons." if len(comparisons) > 1 else ".")
    )
    return table


def _worst_classes(found: Mapping[str, Any]) -> list[Table]:
    """The classes with the highest error, and what they are most often taken for; nothing where nothing is wrong."""
    taken_for: dict[str, str] = {}
    for pair in found["confusions"]:
        if pair["true"] != pair["predicted"]:
            taken_for.setdefault(pair["true"], f"{pair['predicted']} ({pair['images']:,})")
    worst = sorted(found["per_class"], key=lambda one: -one["top1_error"])[:SHOWN]
    if not taken_for:
        return []
    table = table_with(
        "Classes with the highest error" if len(worst) < len(found["per_class"]) else "Error of each class",
        left=("class", "most often taken for"),
        right=("images", "top-1 error, %", "95% interval"),
    )
    for one in worst:
        table.add_row(
            Text(one["name"]),
            Text(taken_for.get(one["name"], "–")),
            f"{one['n']:,}",
            f"{one['top1_error']:.2f}",
            interval(one["top1_error_ci95"], 2),
        )
    return [table]


def scan_tables(found: Mapping[str, Any], *, max_bad: float) -> list[Table | str]:
    """What a source is made of and what is wrong with it, as `Scan.to_dict` gives it."""
    table = table_with(
        found["source"], left=("split",), right=("images", "unusable", "grey", "shorter side", "longer side")
    )
    table.add_column("MB", justify="right")
    for split in found["splits"]:
        bad = 100 * len(split["unusable"]) / split["images"]
        table.add_row(
            Text(split["split"]),
            f"{split['images']:,}",
            f"{len(split['unusable']):,} ({bad:.{0 if bad >= 10 else 1}f}%)" if bad else "0",
            f"{split['grey']:,} ({100 * split['grey'] / split['images']:.1f}%)",
            _side(split["shorter_side"]),
            _side(split["longer_side"]),
            f"{split['bytes'] / 1e6:,.1f}",
        )
    lists: list[Table | str] = [table, _class_table(found["splits"])]
    elsewhere = [same for same in found["duplicates"] if len({split for split, _ in same["images"]}) == 1]
    for title, lines in {
        "Unusable images": [
            f"{split['split']}/{name}: {reason}"
            for split in found["splits"]
            for name, reason in split["unusable"].items()
        ],
        "The same file in more than one split": _places(found["across_splits"]),
        "The same file several times in one split": _places(elsewhere),
        "The same file in different classes": _places(found["contradictions"]),
    }.items():
        if lines:
            more = [f"  and {len(lines) - SHOWN:,} more (--json FILE lists all)"] if len(lines) > SHOWN else []
            lists.append("\n".join([f"{title}: {len(lines):,}", *(f"  {line}" for line in lines[:SHOWN]), *more, ""]))
    too_many = [s["split"] for s in found["splits"] if 100 * len(s["unusable"]) > max_bad * s["images"]]
    if too_many:
        lists.append(
            f"Of {' and '.join(too_many)} over {max_bad:g}% cannot be used: a training would stop (--max-bad)."
        )
    return lists


def _side(side: Sequence[float] | None) -> str:
    if side is None:
        return "–"
    least, middle, greatest = side
    return f"{least}" if least == greatest else f"{least} to {greatest}, median {middle:g}"


def _places(duplicates: Sequence[Mapping[str, Any]]) -> list[str]:
    return [
        f"{' = '.join('/'.join(place) for place in same['images'])} ({', '.join(same['classes'])})"
        for same in duplicates
    ]


def _class_table(splits: Sequence[Mapping[str, Any]]) -> Table:
    """Images per class; of many classes the smallest."""
    counts = splits[0]["per_class"]
    few = len(counts) <= 2 * SHOWN
    shown = list(counts) if few else sorted(counts, key=counts.get)[:SHOWN]
    title = f"{len(counts):,} classes" + ("" if few else f"; the smallest {SHOWN}")
    table = table_with(title, left=("class",), right=[split["split"] for split in splits])
    for name in shown:
        table.add_row(Text(name), *(f"{split['per_class'][name]:,}" for split in splits))
    return table


def training_table(found: Mapping[str, Any]) -> Table:
    """The end of a training, as the verb `train` gives it."""
    table = table_with(
        f"{found['network']} in {found['run']}", left=("after epoch",), right=("loss", "training error, %")
    )
    table.add_column("validation error, %", justify="right")
    for name, figures in (("last", found["last"]), ("best", found["best"])):
        table.add_row(
            f"{figures['epoch']} ({name})",
            f"{figures['loss']:.3f}",
            f"{figures['training_error']:.2f}",
            f"{figures['validation_error']:.2f}",
        )
    if found["unusable"]:
        table.caption = f"{len(found['unusable']):,} images could not be used: {found['run']}/quarantine.jsonl"
    return table


def plan_table(found: Mapping[str, Any]) -> Table:
    """What the grid would train, as the verb `reproduce --dry-run` gives it."""
    seeds, table = (
        found["seeds"],
        table_with("What would be trained", left=("training", "starts from"), right=("epochs",)),
    )
    for column in ("time", "memory"):
        table.add_column(column, justify="right")
    for one in found["trainings"]:
        table.add_row(
            one["training"],
            one["start"] or "random weights",
            f"at most {one['epochs']}",
            "already trained" if one["trained"] else f"at most {duration(one['seconds'])}",
            f"{one['memory_bytes'] / 1e9:.1f} GB",
        )
    seconds = sum(one["seconds"] for one in found["trainings"] if not one["trained"])
    more = sum(one["seconds"] for one in found["trainings"]) * (seeds - 1)
    table.add_section()
    table.add_row("all" if seeds == 1 else f"all, {seeds} seeds", "", "", f"at most {duration(seconds + more)}", "")
    table.caption = Text(f"Measured on a few images. {seeds * found['tests']} tests come on top.")
    return table


def prediction_table(predictions: Sequence[Mapping[str, Any]]) -> Table:
    """The most probable classes of every image."""
    table = table_with(None, left=("image", "class"), right=("probability",))
    for prediction in predictions:
        if prediction["error"]:
            table.add_row(Text(prediction["image"]), Text(prediction["error"]), "", style="red")
        pairs = zip(prediction["classes"], prediction["probabilities"], strict=True)
        for place, (name, probability) in enumerate(pairs):
            table.add_row("" if place else Text(prediction["image"]), Text(name), f"{100 * probability:.1f}%")
    return table


def feature_tables(found: Mapping[str, Any]) -> list[Table | str]:
    """What a file of features holds, as `FeatureFile.to_dict` gives it."""
    without = f", without {len(found['unusable']):,} that cannot be used" if found["unusable"] else ""
    scales = ", ".join(map(str, found["scales"])) + (" and their mirror images" if found["mirror"] else "")
    table = table_with(None, left=("layer",), right=("numbers of each image",))
    for name, shape in found["layers"].items():
        table.add_row(name, " x ".join(f"{side:,}" for side in shape))
    return [f"{found['file']}: {found['images']:,} images at Q = {scales}{without}", table]


def export_table(found: Mapping[str, Any]) -> Table:
    """What was exported, and how it compares with PyTorch, as the verb `export` gives it."""
    agreement, errors = found["agreement"], found["errors"]
    kind = f"{found['to']}, INT8" if found["int8"] else found["to"]
    table = table_with(
        f"{found['file']} ({kind}, {found['bytes'] / 1e6:,.1f} MB)", left=("against PyTorch",), right=("",)
    )
    table.add_row("images compared", f"{agreement['images']:,}")
    table.add_row("greatest difference of a score, of the largest", f"{agreement['greatest_difference']:.1e}")
    table.add_row("same most probable class", f"{agreement['top1_agreement']:.1f}%")
    if errors:
        table.add_row(f"error in float32, {errors['images']:,} images", f"{errors['float32']:.2f}%")
        table.add_row("error in INT8", f"{errors['int8']:.2f}%")
        loss = f"{points(errors['loss'], 2)} ({interval(errors['loss_ci95'], 2, '+')})"
        table.add_row("what INT8 costs, percentage points, 95% interval", loss)
        table.add_row("images wrong in INT8 alone, in float32 alone", f"{errors['lost']:,}, {errors['won']:,}")
        table.add_row("images of which the most probable class changed", f"{errors['changed']:,}")
    table.caption = Text(f"{found['split']} images of {found['source']}")
    if found["unusable"]:
        table.caption.append(f"; {len(found['unusable']):,} images could not be used")
    return table


def weights_table(found: Mapping[str, Any]) -> Table:
    """Weights for another library, and how it has to show them images, as the verb `export` gives it."""
    table = table_with(
        f"{found['file']}: {found['layout']}'s {found['network']}", left=("images",), right=("R", "G", "B")
    )
    table.add_row("mean, of RGB in 0..1", *(f"{value:.4g}" for value in found["mean"]))
    table.add_row("then divided by", *(f"{value:.4g}" for value in found["std"]))
    table.caption = Text("\n".join(found["notes"]))
    return table


def _stage(network: NetworkDescription, stage: int) -> list[str]:
    """`3-64` for each convolution of a stage (Table 1 writes conv3-64), and `LRN`."""
    return [
        _in_table_1(layer)
        for layer in network.layers
        if layer.name.startswith(f"conv{stage}_") or layer.name == f"lrn{stage}"
    ]


def _in_table_1(layer: LayerDescription) -> str:
    return "LRN" if layer.kind == "lrn" else f"{layer.kernel}-{layer.output[0]}"


def table_with(title: str | None, *, left: Sequence[str], right: Sequence[str]) -> Table:
    """An empty one; columns on the right hold numbers."""
    table = Table(title=title and Text(title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for column in left:
        table.add_column(column, overflow="fold")
    for column in right:
        table.add_column(column, justify="right")
    return table


def import_table(found: Mapping[str, Any]) -> Table:
    """What a run was made of, as `Imported.to_dict` gives it."""
    table = table_with(f"{found['run']}, from {found['file']}", left=("", ""), right=())
    norm = " with batch normalisation" if found["batch_norm"] else ""
    width = "" if found["width"] == 1 else f", width {found['width']:g}"
    rows = {
        "layout": found["layout"],
        "network": f"{found['network']}{norm}{width}, crop {found['crop']}",
        "classes": f"{found['classes']:,}",
        "mean RGB": ", ".join(f"{value:.3f}" for value in found["mean_rgb"]),
        "SHA-256": found["sha256"],
    }
    table.show_header = False
    for name, value in rows.items():
        table.add_row(name, Text(value))
    table.caption = Text(" ".join(f"{note}." for note in found["notes"]))
    return table
