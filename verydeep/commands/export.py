"""The verb `export`."""

from pathlib import Path
from typing import Annotated, cast, get_args

from cyclopts import Group, Parameter

from verydeep.commands.options import ImageOptions, JsonFile, RequiredFile
from verydeep.commands.outputs import say_replaced
from verydeep.exported_networks.formats import EXPORT_PRECISION, MAX_LOSS, ExportPrecision, Format
from verydeep.images.tolerance import Tolerance
from verydeep.machine.lock import locked
from verydeep.networks.foreign.layouts import ForeignLayout
from verydeep.presentation.terminal import say_next, show

_CHECK = Parameter(group=Group("Images to check and calibrate on", sort_key=1))


def export(
    run: Path,
    *,
    to: Format | ForeignLayout,
    out: RequiredFile,
    int8: Annotated[bool, Parameter(negative=())] = False,
    precision: ExportPrecision = EXPORT_PRECISION,
    data: Annotated[str | None, _CHECK] = None,
    max_loss: Annotated[float, _CHECK] = MAX_LOSS,
    check_images: Annotated[int | None, _CHECK] = None,
    json_file: JsonFile = None,
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
        int8: Use 8-bit weights and activations, calibrated on training images: about four times smaller, and faster.
        precision: bf16, for openvino: compute products in bfloat16, on processors that multiply in it, which is faster;
            what it costs is measured.
        data: SOURCE of images to calibrate and check on; by default the one that the run was trained on.
        max_loss: Percentage points of error that INT8 or bfloat16 may cost; if it costs more, and more than one image,
            nothing is written.
        check_images: Validation images to check on, evenly spread; by default 100, or all of them for INT8 and
            bfloat16.
        json_file: Write the figures to this file as well (- for standard output instead of the table).
    """
    if to in get_args(ForeignLayout):
        given = (int8, precision, data, check_images, max_loss, images)
        if given != (False, EXPORT_PRECISION, None, None, MAX_LOSS, Tolerance()):
            raise ValueError(
                f"weights for {to} need no images: leave out --int8, --precision, --data and what goes with them"
            )
        from verydeep.export.weights import weights_table, write_weights

        with locked(out):
            say_replaced(out)
            written = write_weights(run, out, cast(ForeignLayout, to))
        show(written.to_dict(), json_file, weights_table(written))
        say_next([out])
        return
    from verydeep.export.export import export as export_run
    from verydeep.export.export import export_table

    with locked(out):
        say_replaced(out)
        exported = export_run(
            run,
            out,
            to=cast(Format, to),
            int8=int8,
            precision=precision,
            data=data,
            max_loss=max_loss,
            check_images=check_images,
            tolerance=images,
        )
    show(exported.to_dict(), json_file, export_table(exported))
    say_next([out], "verydeep", "predict", out, "picture.jpg")
