"""A file that is not a VGG, or is cut off, is refused in one line that names it."""

import copy
import struct
import sys
import zipfile
import zlib

import foreign_weights as foreign
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.io import savemat

from verydeep import TakenWeights, import_weights, vgg
from verydeep.networks.foreign import reader_process, reader_program
from verydeep.networks.foreign.recognition import architecture_of
from verydeep.networks.foreign.weight_files import read_weights


def refused(file, message, **options):
    with pytest.raises(ValueError, match=message) as caught:
        import_weights(file, file.parent / "run", **options)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    assert len(str(caught.value)) < 500
    assert not (file.parent / "run").exists()


@pytest.fixture
def state():
    return foreign.state_dict(foreign.plain("D"), "torchvision")


def saved(state, file):
    torch.save(state, file)
    return file


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"hello", "is not a file of weights: name one that ends in .pth"),
        ("photo.jpg", b"\xff\xd8\xff", "is not a file of weights"),
        ("empty.pth", b"", "is empty: download it again"),
        ("page.pth", b"<!DOCTYPE html><html>404</html>", "cut off, damaged or not PyTorch's"),
        ("page.safetensors", b"<!DOCTYPE html><html>404</html>", "cannot be read"),
        ("page.h5", b"<!DOCTYPE html><html>404</html>", "file signature not found"),
        ("page.caffemodel", b"<!DOCTYPE html><html>404</html>", "cut off, damaged or not Caffe's"),
        ("page.mat", b"<!DOCTYPE html><html>404</html>", "not a MATLAB file of version 5 to 7"),
        ("new.mat", b"\x89HDF\r\n\x1a\n" + b"0" * 600, "MATLAB's version 7.3: save it with -v7"),
    ],
)
def test_files_that_are_something_else(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


def test_files_that_are_not_there(tmp_path):
    refused(tmp_path / "nowhere.pth", "there is no file or folder")
    refused(tmp_path / "typo", "there is no file or folder")
    (tmp_path / "folder.pth").mkdir()
    refused(tmp_path / "folder.pth", "has neither model.safetensors nor pytorch_model.bin")


def test_downloads_that_ended_early(tmp_path, state):
    foreign.write_keras(foreign.plain("D"), tmp_path / "net.h5")
    foreign.write_matconvnet(foreign.plain("D"), tmp_path / "net.mat", old=False)
    (tmp_path / "net.caffemodel").write_bytes(foreign.caffemodel(foreign.plain("D"), old=True))
    saved(state, tmp_path / "net.pth")
    save_file(state, tmp_path / "net.safetensors")
    for file in sorted(tmp_path.glob("net.*")):
        content = file.read_bytes()
        for share in (0.3, 0.99):
            file.write_bytes(content[: int(share * len(content))])
            refused(file, "cut off|truncated|not fully covered")


def test_other_architectures(tmp_path, state):
    resnet = {
        "conv1.weight": torch.ones(64, 3, 7, 7),
        "bn1.weight": torch.ones(64),
        "layer1.0.conv1.weight": torch.ones(2),
    }
    refused(
        saved(resnet, tmp_path / "resnet.pth"),
        "holds conv1.weight, bn1.weight, layer1.0.conv1.weight ..., which is not a VGG",
    )
    alexnet = {f"features.{n}.weight": torch.ones(2, 3, 3, 3) for n in (0, 3, 6, 8, 10)}
    refused(saved(alexnet, tmp_path / "alexnet.pth"), "no network of the paper has convolutions of these sides")
    gap = {**state, "features.40.weight": torch.ones(2, 2, 3, 3)}
    refused(saved(gap, tmp_path / "gap.pth"), r"its convolutions are features.0, .2, .5, .* .40, which no VGG has")
    more = {**state, "classifier.9.weight": torch.ones(2, 2)}
    refused(
        saved(more, tmp_path / "more.pth"),
        "a layer of its head takes 2 numbers, where there are 6",
    )
    sixth = foreign.caffemodel(None, old=False, layers=[("inception_1", np.ones((2, 2)))])
    (tmp_path / "other.caffemodel").write_bytes(sixth)
    refused(tmp_path / "other.caffemodel", "holds the layer inception_1")
    (tmp_path / "flat.caffemodel").write_bytes(foreign.caffemodel(None, old=False, layers=[("fc6", np.ones(4))]))
    refused(tmp_path / "flat.caffemodel", r"fc6.weight has the shape \[4\], which no layer")
    twice = foreign.caffemodel(None, old=False, layers=[("fc6", np.ones((2, 2)))] * 2)
    (tmp_path / "twice.caffemodel").write_bytes(twice)
    refused(tmp_path / "twice.caffemodel", "it has two layers called fc6")
    stray = {"conv1_1.weight": torch.ones(64, 3, 3, 3), "step": torch.ones(1)}
    refused(saved(stray, tmp_path / "stray.pth"), "it holds the layer step, which")


def test_layers_that_do_not_fit_are_named(tmp_path, state):
    def changed(name, value):
        return saved({**state, name: value}, tmp_path / "net.pth")

    refused(
        changed("features.7.weight", torch.ones(8, 9, 3, 3)),
        r"conv2_2.weight has the shape \[8, 9, 3, 3\], where D has",
    )
    refused(changed("features.14.weight", torch.ones(9, 16, 3, 3)), r"conv3_3.weight has the shape \[9, 16, 3, 3\]")
    refused(
        changed("classifier.3.weight", torch.ones(5, 256)),
        r"fc7.weight has the shape \[5, 256\], where D has \[256, 256\]",
    )
    refused(
        changed("classifier.0.weight", torch.ones(256, 96)), "fc6 has 96 inputs, which are not a square of positions"
    )
    refused(changed("classifier.6.weight", torch.ones(6)), r"fc8 has weights of the shape \[6\]")
    refused(changed("features.0.bias", torch.ones(5)), r"conv1_1.bias has the shape \[5\]")
    refused(
        changed("features.2.weight", torch.full((4, 4, 3, 3), torch.nan)),
        "conv1_2 holds values that are not finite numbers",
    )
    refused(
        changed("features.2.weight", torch.ones(4, 4, 3, 3, dtype=torch.int8)), "holds torch.int8, where weights are"
    )
    for name, message in (("features.5.bias", "conv2_1.bias is missing"), ("classifier.3.weight", "it has no fc7")):
        less = {key: value for key, value in state.items() if key != name}
        refused(saved(less, tmp_path / "net.pth"), message)


@pytest.mark.parametrize("layer", ["conv2_1", "conv5_3"])
def test_a_convolution_under_a_wrong_number_is_missed(layer):
    """There are as many in each stage as D has."""
    weights = vgg("D", classes=2, crop=32, width=1 / 16).state_dict()
    weights[f"{layer[:-1]}7.weight"] = weights.pop(f"{layer}.weight")
    with pytest.raises(ValueError, match=f"^{layer} is missing, which D has$"):
        architecture_of(weights)


def test_what_is_no_state_dict(tmp_path):
    refused(saved([torch.ones(2)], tmp_path / "list.pth"), "it holds a list, not a state dict")
    refused(saved({"epoch": 3}, tmp_path / "nothing.pth"), "it holds no weights")
    refused(
        saved(torch.nn.Linear(2, 2), tmp_path / "module.pth"),
        "it holds torch.nn.modules.linear.Linear and would run its code",
    )


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript_is_refused_by_its_name(tmp_path):
    file = tmp_path / "net.pt"
    torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)).save(file)
    refused(file, r"a TorchScript program.* save net\.state_dict\(\)")


def test_several_networks_are_not_guessed_at(tmp_path, state):
    two = {f"{part}.{name}": value for part in ("student", "teacher") for name, value in state.items()}
    refused(saved(two, tmp_path / "two.pth"), "it holds several networks, 'student.', 'teacher.': save one of them")


def test_theanos_order_of_axes(tmp_path):
    import h5py

    with h5py.File(tmp_path / "first.h5", "w") as file:
        file.attrs["nb_layers"] = 37
        file["layer_1/param_0"] = np.ones((4, 3, 3, 3), dtype=np.float32)
    refused(tmp_path / "first.h5", "Keras' first version, in Theano's order of axes, which is not read")
    foreign.write_keras(foreign.plain("D"), tmp_path / "later.h5", form="published")
    with h5py.File(tmp_path / "later.h5", "r+") as file:
        for name in list(file)[:2]:
            kernel = file[name][f"{name}_W_1:0"][()]
            del file[name][f"{name}_W_1:0"]
            file[name][f"{name}_W_1:0"] = kernel.transpose(3, 2, 0, 1)
    refused(tmp_path / "later.h5", "kernels are in Theano's order of axes, which is not read")


def test_matconvnets_other_kind_of_network(tmp_path):
    layers = np.array([("conv1_1", 1.0), ("relu1_1", 2.0)], dtype=[("name", "O"), ("block", "O")])
    savemat(tmp_path / "net.mat", {"layers": layers, "params": np.ones(3)})
    refused(tmp_path / "net.mat", r"it is a DagNN network: only simple ones \(SimpleNN\) are read")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    foreign.write_keras(foreign.plain("D"), tmp_path / "net.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    refused(tmp_path / "net.h5", r"needs the package h5py: pip install 'verydeep\[keras\]'")


def test_a_reader_that_does_not_end_or_dies_is_given_up(tmp_path, monkeypatch):
    foreign.write_keras(foreign.plain("D"), tmp_path / "net.h5")
    program = tmp_path / "program.py"
    monkeypatch.setattr(reader_program, "__file__", str(program))
    program.write_text("import os; os.abort()")
    refused(tmp_path / "net.h5", r"its reader failed \(status -6\)")
    monkeypatch.setattr(reader_process, "PATIENCE", 0.2)
    program.write_text("import time; time.sleep(60)")
    refused(tmp_path / "net.h5", "its reader does not finish")


def test_nothing_is_unpacked_that_is_many_times_as_large_as_its_file(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    refused(tmp_path / "bomb.pth", "archive with compressed files")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w") as archive:
        archive.writestr("archive/data/0", bytes(1_000_000))
        for number in range(1, 100):  # the same place under other names
            again = copy.copy(archive.filelist[0])
            again.filename = f"archive/data/{number}"
            archive.filelist.append(again)
    refused(tmp_path / "bomb.pth", "the files in it claim to be larger than it is")
    wide = foreign.state_dict(foreign.plain("D"), "torchvision")
    wide["classifier.0.weight"] = torch.ones(1).expand(2**15, 2**15)
    refused(saved(wide, tmp_path / "bomb.pth"), "its arrays claim to be many times as large as the file")
    with zipfile.ZipFile(tmp_path / "bomb.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(100_000_000))
    refused(tmp_path / "bomb.keras", "claims to hold more than it can")
    import h5py

    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        file.create_dataset("layers/conv2d/vars/0", shape=(3, 3, 10**5, 10**5), dtype="f4", chunks=(3, 3, 64, 64))
    refused(tmp_path / "bomb.h5", "conv2d claims to hold more than there is in the file")
    with h5py.File(tmp_path / "bomb.h5", "w") as file:
        packed = file.create_dataset(
            "layers/conv2d/vars/0", (3, 3, 2000, 2000), "f4", chunks=(1, 1, 64, 64), compression="gzip"
        )
        packed[0, 0, 0, 0] = 1
    refused(tmp_path / "bomb.h5", "conv2d claims to hold more than there is in the file")


MATLAB = b"MATLAB 5.0".ljust(124) + b"\x00\x01IM"


def cells(shape, name=b""):
    """The start of a cell array in a MATLAB file."""
    return struct.pack("<IIIIIIii", 6, 8, 1, 0, 5, 8, *shape) + struct.pack("<II8s", 1, len(name), name)


def compressed(content):
    packed = zlib.compress(struct.pack("<II", 14, len(content)) + content)
    return struct.pack("<II", 15, len(packed)) + packed


@pytest.mark.parametrize("packed", ["numbers", "cells"])
def test_no_matlab_file_is_unpacked_that_is_many_times_as_large_as_it_is(tmp_path, packed):
    if packed == "numbers":
        savemat(tmp_path / "bomb.mat", {"layers": np.zeros(9_000_000)}, do_compression=True)
    else:
        content = cells((1, 4_000_000), b"layers") + struct.pack("<II", 14, 0) * 4_000_000
        (tmp_path / "bomb.mat").write_bytes(MATLAB + compressed(content))
    assert (tmp_path / "bomb.mat").stat().st_size < 200_000
    refused(tmp_path / "bomb.mat", "claims to hold many times as much as its size allows")


def test_cells_in_cells_in_cells_end_the_reader_alone(tmp_path):
    """SciPy's reader calls itself for each, and overflows its stack."""
    levels, size = [], 0
    for number in range(200_000):
        head = cells((1, 1), b"layers" if number == 199_999 else b"")
        size += len(head)
        levels.append(struct.pack("<II", 14, size) + head)
        size += 8
    (tmp_path / "bomb.mat").write_bytes(MATLAB + b"".join(reversed(levels)))
    refused(tmp_path / "bomb.mat", r"its reader failed \(status -\d+\)|many times as much|cut off or damaged")


def test_averaged_weights_are_refused_where_no_file_of_the_kind_has_them(tmp_path):
    file = tmp_path / "net.caffemodel"
    file.write_bytes(foreign.caffemodel(foreign.plain("D", white=255), old=False))
    refused(file, "is of a kind that holds no averaged weights.*leave out --ema", taken=TakenWeights(ema=True))


def test_links_to_other_files_are_not_followed(tmp_path):
    import h5py

    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["secret"] = np.ones((3, 3, 3, 4), dtype=np.float32)
    with h5py.File(tmp_path / "net.h5", "w") as file:
        file.create_group("layers/conv2d/vars")["0"] = h5py.ExternalLink("other.h5", "/secret")
    refused(tmp_path / "net.h5", "it has no 0")


def test_readers_keep_values_to_the_bit(tmp_path, state):
    saved(state, tmp_path / "net.pth")
    found = read_weights(tmp_path / "net.pth").arrays
    assert all(torch.equal(value, state[name]) for name, value in found.items())
    net = foreign.plain("D")
    (tmp_path / "net.caffemodel").write_bytes(foreign.caffemodel(net, old=True))
    found = read_weights(tmp_path / "net.caffemodel").arrays
    assert np.array_equal(found["conv1_1.weight"].numpy(), net.convolutions[0][2])
