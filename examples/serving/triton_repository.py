"""Write a model repository for Triton from an exported ONNX file, with `config.pbtxt` and the names of classes.

    verydeep export runs/a --to onnx --out a.onnx
    python examples/serving/triton_repository.py a.onnx repository
    tritonserver --model-repository repository

Triton's batches have images of one size, so it is given crops: RGB in 0..255, of the network's crop size. It answers
logits, whose soft-max are the posteriors. Whole images, decoding and score maps are what `verydeep serve` is for.
"""

import argparse
import shutil
from pathlib import Path

from verydeep.exported_networks.exported import load_exported

CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [
  {{ name: "images" data_type: TYPE_FP32 dims: [ 3, {crop}, {crop} ] }}
]
output [
  {{ name: "logits" data_type: TYPE_FP32 dims: [ {classes} ] label_filename: "labels.txt" }}
]
dynamic_batching {{ max_queue_delay_microseconds: 2000 }}
"""


def write_repository(file: Path, repository: Path, *, batch: int = 16) -> Path:
    """Write a model repository; return the model's folder in it, which is named as the file.

    Args:
        file: as `verydeep export --to onnx` writes it.
        repository: folder of the repository, which is made if missing.
        batch: most crops that are computed at once.

    Raises:
        ValueError: the file is not one that `verydeep export` wrote.
    """
    model = load_exported(file)
    folder = repository / file.stem
    (folder / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file, folder / "1" / "model.onnx")
    config = CONFIG.format(name=file.stem, batch=batch, crop=model.net.architecture.crop, classes=len(model.classes))
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in model.classes), encoding="utf-8")
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.onnx")
    parser.add_argument("repository", type=Path, metavar="FOLDER")
    parser.add_argument("--batch", type=int, default=16, help="most crops that are computed at once (16)")
    print(write_repository(**vars(parser.parse_args())))
