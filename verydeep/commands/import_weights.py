"""The verb `import`."""

from fractions import Fraction
from pathlib import Path

from verydeep.commands.options import JsonFile
from verydeep.networks.foreign.layouts import Channels, Triple, White
from verydeep.presentation.terminal import show
from verydeep.runs.tables import import_table


def import_(
    weights: str,
    *,
    out: Path,
    network: str | None = None,
    class_names: str | None = None,
    mean: str | None = None,
    std: str | None = None,
    channels: Channels | None = None,
    white: White | None = None,
    json_file: JsonFile = None,
) -> None:
    """Make a run of weights of torchvision, timm, Keras, Caffe or MatConvNet, to use like any other.

    What they are is recognised. The last four options are for weights that were trained with other preprocessing
    than those that their library publishes: it computes (x * white / 255 - mean) / std.

    Args:
        weights: A file (.pth, .pt, .ckpt, .bin, .tar, .safetensors, .h5, .hdf5, .keras, .caffemodel, .mat), a run, or
            hub:NAME.
        out: The run folder to make.
        network: A-LRN for weights that would else count as A's, which have the same shapes.
        class_names: words or wnids of ImageNet's classes for 1,000 outputs, or a file with a name per line. If not
            said, a run keeps its names, and of others it is words.
        mean: Three numbers with commas between them, in the library's order of channels and range.
        std: The same, to divide by; 1/255 can be said for a number.
        channels: rgb or bgr, the order that the network takes.
        white: 1 or 255, what a white pixel is.
        json_file: Write what was found to this file as well (- for standard output instead of the table).
    """
    from verydeep.runs.import_weights import Trained, import_weights

    trained = Trained(mean=_three(mean, "--mean"), std=_three(std, "--std"), channels=channels, white=white)
    found = import_weights(weights, out, network=network, class_names=class_names, trained=trained).to_dict()
    show(found, json_file, import_table(found))


def _three(text: str | None, option: str) -> Triple | None:
    if text is None:
        return None
    try:
        first, second, third = (float(Fraction(part.strip())) for part in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        raise ValueError(f"{option} takes three numbers with commas between them, not {text!r}") from None
    return first, second, third
