"""The verb `import`."""

from verydeep.commands.options import JsonFile, PreprocessingOptions, RequiredFolder, TakenOptions
from verydeep.machine.lock import locked
from verydeep.networks.foreign.layouts import TakenWeights, TrainedPreprocessing
from verydeep.presentation.terminal import say_next, show


def import_(
    weights: str,
    *,
    out: RequiredFolder,
    network: str | None = None,
    class_names: str | None = None,
    json_file: JsonFile = None,
    taken: TakenOptions = TakenWeights(),
    trained: PreprocessingOptions = TrainedPreprocessing(),
) -> None:
    """Make a run from weights of torchvision, timm, Keras, ONNX, Caffe, MatConvNet or NumPy, to use like any other.

    The kind of the weights is recognised. Preprocessing, (x * white / 255 - mean) / std, need only be given where it is
    not the one that their library publishes.

    Args:
        weights: A file (.pth, .pt, .ckpt, .bin, .tar, .safetensors, .h5, .hdf5, .keras, .caffemodel, .mat, .npz,
            .npy, .onnx, the .safetensors.index.json of shards), a run, or hub:NAME.
        out: The run folder to make.
        network: A-LRN for weights that would otherwise count as A's, which have the same shapes.
        class_names: words or wnids of ImageNet's classes for 1,000 outputs, or a file with a name per line. By default
            a run keeps its names, and others get words.
        json_file: Write the findings to this file as well (- for standard output instead of the table).
    """
    from verydeep.runs.import_weights import import_table, import_weights, next_command

    with locked(out):
        imported = import_weights(weights, out, network=network, class_names=class_names, trained=trained, taken=taken)
    show(imported.to_dict(), json_file, import_table(imported))
    say_next([imported.run], *next_command(imported))
