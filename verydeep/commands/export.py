"""The verb `export`."""

from pathlib import Path
from typing import cast, get_args

from verydeep.commands.options import ExportFileOptions, ImageOptions, JsonFile, RequiredFile
from verydeep.commands.outputs import say_replaced
from verydeep.exported_networks.formats import ExportOptions, Format, check_export, files_of
from verydeep.images.tolerance import Tolerance
from verydeep.machine.lock import locked
from verydeep.networks.foreign.layouts import ForeignLayout
from verydeep.presentation.terminal import say_next, show


def export(
    run: Path,
    *,
    to: Format | ForeignLayout,
    out: RequiredFile,
    json_file: JsonFile = None,
    options: ExportFileOptions = ExportOptions(),
    images: ImageOptions = Tolerance(),
) -> None:
    """Write a run's network for other runtimes, checked against PyTorch on real images; or its weights for a library.

    Files of onnx, openvino, ncnn and torch are networks that verydeep predict takes in place of a run. torchvision and
    timm have VGGs of their own, A, B, D and E: for them weights are written, with nothing to check or to calibrate.

    Args:
        run: A run folder.
        to: onnx (.onnx), openvino (.xml and .bin), ncnn (.ncnn.param and .ncnn.bin) or torch (.pt2 of torch.export);
            torchvision or timm (.pth, .pt or .safetensors).
        out: The file to write. It appears only if its scores are PyTorch's.
        json_file: Write the figures to this file as well (- for standard output instead of the table).
    """
    from verydeep.runs.model import load_config

    if to in get_args(ForeignLayout):
        if (options, images) != (ExportOptions(), Tolerance()):
            raise ValueError(
                f"weights for {to} need no images: leave out --int8, --precision, --data and their options"
            )
        from verydeep.conversion.weights import check_suffix, weights_table, write_weights

        check_suffix(out)
        load_config(run)
        with locked(out):
            say_replaced(out)
            written = write_weights(run, out, cast(ForeignLayout, to))
        show(written.to_dict(), json_file, weights_table(written))
        say_next([out])
        return
    from verydeep.conversion.export import export as export_run
    from verydeep.conversion.export import export_table

    check_export(cast(Format, to), out, options)
    load_config(run)
    with locked(out):
        if out.is_file():
            say_replaced(*files_of(out))
        exported = export_run(run, out, to=cast(Format, to), options=options, tolerance=images)
    show(exported.to_dict(), json_file, export_table(exported))
    say_next([out], "verydeep", "predict", out, "picture.jpg")
