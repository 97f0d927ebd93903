"""Weights laid out as other libraries do it give the outputs that those libraries' computation gives."""

import io
import json

import foreign_weights as foreign
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from verydeep import Recipe, TakenWeights, TrainedPreprocessing, evaluate, import_weights, load, train
from verydeep.cli import main
from verydeep.conversion.export import export
from verydeep.descriptors.descriptor import Descriptor
from verydeep.descriptors.features import features
from verydeep.ilsvrc_classes import ilsvrc_classes
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.runs.model import file_sha256, load_model, weights_fingerprint
from verydeep.runs.push import _model_card
from verydeep.runs.record import read_record

CROP = 64


def imported(file, folder, **options):
    found = import_weights(file, folder / "run", **options)
    return found, load(folder / "run")


def differs(net, rgb, expected):
    """The largest difference."""
    with torch.no_grad():
        found = net(torch.from_numpy(rgb)).numpy()
    assert np.abs(expected).max() > 0.5
    assert found.shape == expected.shape
    return np.abs(found - expected).max()


every_network = pytest.mark.parametrize(
    ("network", "batch_norm"), [(name, batch_norm) for name in "ABDE" for batch_norm in (False, True)]
)


@every_network
@pytest.mark.parametrize("layout", ["torchvision", "timm"])
def test_state_dicts_of_torchvision_and_timm(tmp_path, network, batch_norm, layout):
    plain, rgb = foreign.plain(network, batch_norm=batch_norm), foreign.images(CROP)
    torch.save(foreign.state_dict(plain, layout), tmp_path / "net.pth")
    found, net = imported(tmp_path / "net.pth", tmp_path)
    assert (found.layout, found.network, found.batch_norm) == (layout, network, batch_norm)
    assert (found.width, found.crop, found.classes, found.notes) == (1 / 16, CROP, 6, ())
    assert found.mean_rgb == pytest.approx((123.675, 116.28, 103.53), abs=1e-4)
    assert differs(net, rgb, foreign.scores(plain, foreign.torch_pixels(rgb))) < 1e-4


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (torch.tensor(17.0).half(), 17),
        (torch.tensor(1e5).half(), 0),  # infinite
        (torch.tensor(17, dtype=torch.int32), 17),
        (torch.tensor(17.3), 17),
        (torch.tensor(1e30), 2**53),
        (torch.tensor(torch.nan), 0),
    ],
)
def test_counts_of_batches_of_any_type_are_whole_numbers(tmp_path, count, expected):
    """A checkpoint that is halved or averaged as a whole has such; they change no score."""
    plain, rgb = foreign.plain("A", batch_norm=True), foreign.images(CROP)
    state = foreign.state_dict(plain, "torchvision")
    counts = {name: count for name in state if name.endswith("num_batches_tracked")}
    torch.save({**state, **counts}, tmp_path / "net.pth")
    import_weights(tmp_path / "net.pth", tmp_path / "run")
    net = load_model(tmp_path / "run").net
    assert differs(net, rgb, foreign.scores(plain, foreign.torch_pixels(rgb))) < 1e-4
    found = net.state_dict()["bn5_2.num_batches_tracked"]
    assert (found.dtype, found.item()) == (torch.int64, expected)


@pytest.mark.parametrize("network", ["D", "E", "C", "A"])
@pytest.mark.parametrize("form", ["legacy", "published", "whole", "new", "archive"])
def test_keras(tmp_path, network, form):
    pytest.importorskip("h5py")
    file = tmp_path / {"new": "net.weights.h5", "archive": "net.keras"}.get(form, "net.h5")
    plain, rgb = foreign.plain(network, white=255), foreign.images(CROP)
    foreign.write_keras(plain, file, form=form)
    found, net = imported(file, tmp_path)
    assert (found.layout, found.network) == ("keras", network)
    assert differs(net, rgb, foreign.keras_scores(plain, rgb)) < 1e-4


@pytest.mark.parametrize("form", ["legacy", "new"])
def test_keras_layers_without_names_go_by_their_order(tmp_path, form):
    pytest.importorskip("h5py")
    plain, rgb = foreign.plain("E", white=255), foreign.images(CROP)
    foreign.write_keras(plain, tmp_path / "net.h5", form=form, block_names=False)
    _, net = imported(tmp_path / "net.h5", tmp_path)
    assert differs(net, rgb, foreign.keras_scores(plain, rgb)) < 1e-4


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize("network", ["C", "D", "E"])
def test_caffe(tmp_path, network, old):
    plain, rgb = foreign.plain(network, white=255), foreign.images(CROP)
    (tmp_path / "net.caffemodel").write_bytes(foreign.caffemodel(plain, old=old))
    found, net = imported(tmp_path / "net.caffemodel", tmp_path)
    assert (found.layout, found.network) == ("caffe", network)
    assert found.mean_rgb == pytest.approx(foreign.RGB_MEAN, abs=1e-4)
    assert differs(net, rgb, foreign.scores(plain, foreign.caffe_pixels(rgb))) < 1e-4


@pytest.mark.parametrize(("old", "compress"), [(True, False), (False, True), (False, False)])
def test_matconvnet(tmp_path, old, compress):
    plain, rgb, mean = foreign.plain("D", white=255), foreign.images(CROP), (120.0, 90.0, 70.0)
    foreign.write_matconvnet(plain, tmp_path / "net.mat", old=old, mean=mean, compress=compress, classes=list("uvwxyz"))
    found, net = imported(tmp_path / "net.mat", tmp_path)
    assert (found.layout, found.mean_rgb) == ("matconvnet", mean)
    assert load_model(tmp_path / "run").classes == tuple("uvwxyz")
    assert differs(net, rgb, foreign.scores(plain, foreign.rgb_pixels(rgb, mean))) < 1e-4


def test_the_variation_of_a_mean_image_is_noted(tmp_path):
    plain, rgb = foreign.plain("D", white=255), foreign.images(CROP)
    image = np.reshape((120.0, 90.0, 70.0), (1, 1, 3)) + np.linspace(-2, 2, 25).reshape(5, 5, 1)
    foreign.write_matconvnet(plain, tmp_path / "net.mat", old=True, mean=image)
    found, net = imported(tmp_path / "net.mat", tmp_path)
    assert found.notes == ("the mean image varies by 4.0 grey levels: its average is used",)
    assert differs(net, rgb, foreign.scores(plain, foreign.rgb_pixels(rgb, (120.0, 90.0, 70.0)))) < 1e-4
    foreign.write_matconvnet(plain, tmp_path / "net.mat", old=True, mean=np.zeros((5, 5)))
    found = import_weights(tmp_path / "net.mat", tmp_path / "other")
    assert found.notes == (
        "it has an average image of another shape than [H, W, 3]: ILSVRC's mean is used unless another is given",
    )
    assert found.mean_rgb == pytest.approx(foreign.RGB_MEAN, abs=1e-4)


def test_caffes_double_numbers(tmp_path):
    plain, rgb = foreign.plain("D", white=255), foreign.images(CROP)
    layers = [(name, *(value.astype(np.float64) for value in values)) for name, *values in foreign.caffe_layers(plain)]
    (tmp_path / "net.caffemodel").write_bytes(foreign.caffemodel(plain, old=False, layers=layers))
    _, net = imported(tmp_path / "net.caffemodel", tmp_path)
    assert differs(net, rgb, foreign.scores(plain, foreign.caffe_pixels(rgb))) < 1e-4


def test_torchvisions_weights_for_features_only(tmp_path):
    """Its VGG16_Weights.IMAGENET1K_FEATURES: NaN for a classifier, another mean, and 1/255 for a std."""
    plain, rgb = foreign.plain("D", white=255), foreign.images(CROP)
    state = foreign.state_dict(plain, "torchvision")
    for name in state:
        if name.startswith("classifier"):
            state[name] = torch.full_like(state[name], torch.nan)
    torch.save(state, tmp_path / "net.pth")
    found, net = imported(tmp_path / "net.pth", tmp_path)
    expected = foreign.features(plain, foreign.torch_pixels(rgb, (0.48235, 0.45882, 0.40784), (1 / 255,) * 3))
    with torch.no_grad():
        pool5 = net.activations(torch.from_numpy(rgb), ["pool5"])["pool5"].numpy()
    assert expected.max() > 0.5
    assert np.abs(pool5 - expected).max() < 1e-4
    assert "those of torchvision's weights for features only" in found.notes[0]
    said = import_weights(
        tmp_path / "net.pth", tmp_path / "said", trained=TrainedPreprocessing(mean=(0.5,) * 3, std=(0.5,) * 3)
    )
    assert len(said.notes) == 1
    assert said.mean_rgb == pytest.approx((127.5,) * 3)


def test_matconvnets_filters_take_bgr_where_the_mean_is_from_blue_to_red(tmp_path):
    plain, rgb = foreign.plain("D", white=255), foreign.images(CROP)
    foreign.write_matconvnet(plain, tmp_path / "net.mat", old=False, mean=foreign.RGB_MEAN[::-1])
    _, net = imported(tmp_path / "net.mat", tmp_path)
    assert differs(net, rgb, foreign.scores(plain, foreign.caffe_pixels(rgb))) < 1e-4


def test_large_kernels_and_one_window(tmp_path):
    plain, rgb = foreign.plain("B-5x5", kernel=5, window=1), foreign.images(32)
    torch.save(foreign.state_dict(plain, "torchvision"), tmp_path / "net.pt")
    found, net = imported(tmp_path / "net.pt", tmp_path)
    assert (found.network, found.crop) == ("B-5x5", 32)
    assert differs(net, rgb, foreign.scores(plain, foreign.torch_pixels(rgb))) < 1e-4


def test_other_preprocessing_is_given_in_the_librarys_units(tmp_path):
    """Caffe's, in torchvision's names and either range of values."""
    plain, rgb = foreign.plain("D", white=255), foreign.images(CROP)
    torch.save(foreign.state_dict(plain, "torchvision"), tmp_path / "net.pth")
    expected = foreign.scores(plain, foreign.caffe_pixels(rgb))
    bgr = foreign.RGB_MEAN[::-1]
    _, net = imported(
        tmp_path / "net.pth",
        tmp_path,
        trained=TrainedPreprocessing(channels="bgr", white=255, mean=bgr, std=(1.0, 1.0, 1.0)),
    )
    assert differs(net, rgb, expected) < 1e-4
    small = TrainedPreprocessing(channels="bgr", mean=tuple(value / 255 for value in bgr), std=(1 / 255,) * 3)
    _, net = imported(tmp_path / "net.pth", tmp_path / "small", trained=small)
    assert differs(net, rgb, expected) < 1e-4


@pytest.mark.parametrize("wrapped", ["state_dict", "model", "both"])
def test_checkpoints_of_training_scripts(tmp_path, wrapped):
    import argparse

    plain, rgb = foreign.plain("A"), foreign.images(CROP)
    state = {f"module.{name}": value for name, value in foreign.state_dict(plain, "torchvision").items()}
    whole = {"epoch": 3, "args": argparse.Namespace(lr=0.1), "arch": "vgg11"}
    whole |= {"model": {"state_dict": state}} if wrapped == "both" else {wrapped: state}
    torch.save(whole, tmp_path / "checkpoint.pth.tar")
    _, net = imported(tmp_path / "checkpoint.pth.tar", tmp_path)
    assert differs(net, rgb, foreign.scores(plain, foreign.torch_pixels(rgb))) < 1e-4


@pytest.mark.parametrize("prefix", ["net.", "model.module.", "model._orig_mod."])
def test_checkpoints_of_classes_that_train(tmp_path, prefix):
    """As Lightning saves them: the network under a name of its own, beside other things."""
    plain, rgb = foreign.plain("A"), foreign.images(CROP)
    state = {f"{prefix}{name}": value for name, value in foreign.state_dict(plain, "torchvision").items()}
    torch.save({"state_dict": {**state, "criterion.weight": torch.arange(6)}}, tmp_path / "last.ckpt")
    found, net = imported(tmp_path / "last.ckpt", tmp_path)
    name = prefix.partition(".")[0]
    assert found.notes == (f"ignored everything but what is under {name}.: criterion.weight (1 in all)",)
    assert differs(net, rgb, foreign.scores(plain, foreign.torch_pixels(rgb))) < 1e-4


def test_several_devices_for_the_convolutions_only(tmp_path):
    plain, rgb = foreign.plain("A"), foreign.images(CROP)
    state = foreign.state_dict(plain, "torchvision")
    torch.save({name.replace("features.", "features.module."): state[name] for name in state}, tmp_path / "net.pth")
    found, net = imported(tmp_path / "net.pth", tmp_path)
    assert found.notes == ()
    assert differs(net, rgb, foreign.scores(plain, foreign.torch_pixels(rgb))) < 1e-4


def test_the_convolutions_by_themselves(tmp_path):
    """As `net.features.state_dict()` gives them."""
    plain, rgb = foreign.plain("A"), foreign.images(CROP)
    state = foreign.state_dict(plain, "torchvision")
    few = {name.removeprefix("features."): state[name] for name in state if name.startswith("features.")}
    torch.save(few, tmp_path / "net.pth")
    _, net = imported(tmp_path / "net.pth", tmp_path)
    with torch.no_grad():
        pool5 = net.activations(torch.from_numpy(rgb), ["pool5"])["pool5"].numpy()
    assert np.abs(pool5 - foreign.features(plain, foreign.torch_pixels(rgb))).max() < 1e-4


def test_timms_config_tells_mean_std_and_classes(tmp_path):
    plain, rgb = foreign.plain("D"), foreign.images(CROP)
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.125)
    names = [f"bird {n}" for n in range(6)]
    config = {"architecture": "vgg16", "pretrained_cfg": {"mean": mean, "std": std, "label_names": names}}
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    save_file(foreign.state_dict(plain, "timm"), tmp_path / "hub" / "model.safetensors")
    _, net = imported(tmp_path / "hub", tmp_path)
    assert differs(net, rgb, foreign.scores(plain, foreign.torch_pixels(rgb, mean, std))) < 1e-4
    assert load_model(tmp_path / "run").classes == tuple(names)


def test_a_run_that_is_imported_again_stays_the_same(tmp_path):
    torch.save(foreign.state_dict(foreign.plain("A"), "torchvision"), tmp_path / "net.pth")
    imported(tmp_path / "net.pth", tmp_path)
    again = import_weights(tmp_path / "run", tmp_path / "again")
    one, other = load_model(tmp_path / "run"), load_model(tmp_path / "again")
    assert again.layout == "verydeep"
    assert (one.classes, one.scale, one.flip) == (other.classes, other.scale, other.flip)
    assert all(torch.equal(value, other.net.state_dict()[name]) for name, value in one.net.state_dict().items())
    bare = import_weights(tmp_path / "run" / "model" / "model.safetensors", tmp_path / "bare")
    assert bare.layout == "verydeep"
    assert torch.equal(load(tmp_path / "bare").mean_rgb, one.net.mean_rgb)


def test_the_config_beside_a_file_of_the_hub_counts_when_the_file_is_named(tmp_path):
    torch.save(foreign.state_dict(foreign.plain("A"), "torchvision"), tmp_path / "net.pth")
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\nf\n")
    imported(tmp_path / "net.pth", tmp_path, network="A-LRN", class_names=str(tmp_path / "names.txt"))
    found = import_weights(tmp_path / "run" / "model" / "model.safetensors", tmp_path / "again")
    assert found.network == "A-LRN"
    assert load_model(tmp_path / "again").classes == tuple("abcdef")


def test_a_lrn_must_be_named(tmp_path):
    torch.save(foreign.state_dict(foreign.plain("A"), "torchvision"), tmp_path / "net.pth")
    found, net = imported(tmp_path / "net.pth", tmp_path, network="A-LRN")
    assert found.network == net.architecture.network == "A-LRN"
    with pytest.raises(ValueError, match="it holds the weights of A, not of D"):
        import_weights(tmp_path / "net.pth", tmp_path / "other", network="D")


@pytest.mark.parametrize("lacking", ["numbers", "layers"])
def test_layers_that_a_file_for_features_lacks_are_random_and_noted(tmp_path, lacking):
    state = foreign.state_dict(foreign.plain("D", window=7), "torchvision")
    heads = [name for name in state if name.startswith("classifier")]
    for name in heads:
        state[name] = torch.full_like(state[name], torch.nan)
    if lacking == "layers":
        state = {name: value for name, value in state.items() if name not in heads}
    torch.save(state, tmp_path / "features.pth")
    found, net = imported(tmp_path / "features.pth", tmp_path)
    assert found.classes == (6 if lacking == "numbers" else 1000)
    assert found.notes[-1].startswith("fc6, fc7, fc8 are no")
    assert all(value.isfinite().all() for value in net.state_dict().values())
    assert net.fc6.weight.std() > 0
    assert read_record(tmp_path / "run").initialisation.endswith("; glorot initialisation: fc6, fc7, fc8")
    assert load_model(tmp_path / "run").classes[:2] == ("class 0", "class 1")  # not ImageNet's
    again = import_weights(tmp_path / "run", tmp_path / "again")
    assert again.notes == (
        "it was imported without fc6, fc7, fc8, which are random: it is for features and --finetune",
    )
    assert load_model(tmp_path / "again").random_layers == ("fc6", "fc7", "fc8")


def test_random_layers_are_not_forgotten(tmp_path, capsys):
    state = foreign.state_dict(foreign.plain("A", window=1, classes=2), "torchvision")
    for name in state:
        if name.startswith("classifier"):
            state[name] = torch.full_like(state[name], torch.nan)
    torch.save(state, tmp_path / "net.pth")
    (tmp_path / "names.txt").write_text("dark\nlight\n")
    run = tmp_path / "run"
    import_weights(tmp_path / "net.pth", run, class_names=str(tmp_path / "names.txt"))
    noise = Splits(name="noise", sources={"train": pictures(8, 0), "val": pictures(4, 1)})
    told = "run was imported without fc6, fc7, fc8, which are random"
    evaluate(run, data=noise, cache=False)
    assert told in capsys.readouterr().err
    (tmp_path / "picture.png").write_bytes(pictures(1, 0)[0].data)
    main(["predict", str(run), str(tmp_path / "picture.png")])
    assert told in capsys.readouterr().err
    card = _model_card(run, "hub:someone/net")
    assert "verydeep predict" not in card
    assert "fc6, fc7, fc8 are random" in card
    needed = (
        "so relu7 would be of random weights: take a run with fc6 and fc7, or of this one pool5 or an earlier layer"
    )
    with pytest.raises(ValueError, match=needed):
        features(run, noise, split="train")
    features(run, noise, split="train", descriptor=Descriptor(layers=("pool5",)))
    tiny = {"crop": 32, "width": 1 / 16, "epochs": 1, "batch": 4, "finetune": str(run)}
    out = train(noise, network="A", out=tmp_path / "out", recipe=Recipe(**tiny, seed=5, learning_rate=1e-30))
    assert "fc6, fc7, fc8 are new" in capsys.readouterr().err
    assert read_record(out).initialisation.endswith("; glorot initialisation: fc6, fc7, fc8")
    assert not torch.allclose(load(out).fc7.weight, load(run).fc7.weight)
    assert torch.allclose(load(out).conv4_1.weight, load(run).conv4_1.weight)
    assert load_model(out).random_layers == ()
    with pytest.raises(ValueError, match="run was imported without fc6, fc7, fc8"):
        export(run, tmp_path / "net.pt2", to="torch")
    with pytest.raises(ValueError, match=r"cannot start from .*: it was imported without fc6, fc7, fc8"):
        train(
            noise, network="A", out=tmp_path / "started", recipe=Recipe(**{**tiny, "finetune": None, "init": str(run)})
        )
    with pytest.raises(ValueError, match="freeze fc7 would keep fc6, fc7 at random weights"):
        train(noise, network="A", out=tmp_path / "frozen", recipe=Recipe(**tiny, freeze="fc7"))


def test_the_record_names_the_file_and_has_no_recipe(tmp_path):
    torch.save(foreign.state_dict(foreign.plain("A"), "timm"), tmp_path / "net.pth")
    found, _ = imported(tmp_path / "net.pth", tmp_path)
    record = read_record(tmp_path / "run")
    assert (record.recipe, record.images, record.runtime) == ({}, {}, {})
    assert record.imported["file"] == "net.pth"
    assert record.imported["sha256"] == found.sha256 == file_sha256(tmp_path / "net.pth")
    assert (record.imported["layout"], record.imported["white"], record.imported["channels"]) == ("timm", 1, "rgb")
    assert record.classes == tuple(f"class {number}" for number in range(6))


def pictures(count, seed):
    """Noise that is dark or light."""
    rng, samples = np.random.default_rng(seed), []
    for index in range(count):
        buffer = io.BytesIO()
        Image.fromarray((rng.integers(0, 100, (40, 44, 3)) + 150 * (index % 2)).astype(np.uint8)).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), index % 2, f"{index}.png"))
    return memory_source(classes=("dark", "light"), samples=tuple(samples))


def test_an_imported_run_is_tested_and_trained_further(tmp_path):
    torch.save(foreign.state_dict(foreign.plain("A", window=1, classes=2), "torchvision"), tmp_path / "net.pth")
    (tmp_path / "names.txt").write_text("dark\nlight\n")
    run = tmp_path / "run"
    import_weights(tmp_path / "net.pth", run, class_names=str(tmp_path / "names.txt"))
    noise = Splits(name="noise", sources={"train": pictures(8, 0), "val": pictures(4, 1)})
    assert evaluate(run, data=noise, cache=False).n == 4
    tiny = {"crop": 32, "width": 1 / 16, "epochs": 1, "batch": 4}
    for recipe in (Recipe(**tiny, finetune=str(run)), Recipe(**tiny, init=str(run))):
        kind = "finetune" if recipe.finetune else "init"
        out = train(noise, network="A", out=tmp_path / kind, recipe=recipe)
        assert read_record(out).fingerprints[kind] == weights_fingerprint(run)
    with pytest.raises(ValueError, match="was imported, so there is nothing to resume"):
        train(noise, network="A", out=run, recipe=Recipe(**tiny), resume=True)


def test_imagenets_folders_fit_its_names(tmp_path):
    """Whether they are called by ids or by words."""
    torch.save(foreign.state_dict(foreign.plain("A", window=1, classes=1000), "torchvision"), tmp_path / "net.pth")
    ids = ("n02123045", "n01440764", "n01443537")
    for name, chosen in (("words", None), ("wnids", "wnids")):
        import_weights(tmp_path / "net.pth", tmp_path / name, class_names=chosen)
    for place, called in (("by id", ids), ("by word", ("tabby", "tench", "goldfish"))):
        for number, name in enumerate(called):
            folder = tmp_path / place / name
            folder.mkdir(parents=True)
            for index in range(4):
                (folder / f"{index}.png").write_bytes(pictures(12, 3)[4 * number + index].data)
    found = {
        (run, place): evaluate(tmp_path / run, data=str(tmp_path / place), split="all", cache=False)
        for run in ("words", "wnids")
        for place in ("by id", "by word")
    }
    assert {tuple(one.images.labels.tolist()) for one in found.values()} >= {(0,) * 4 + (1,) * 4 + (281,) * 4}
    assert len({tuple(sorted(one.images.labels.tolist())) for one in found.values()}) == 1
    (tmp_path / "by word" / "n01440764").mkdir()
    (tmp_path / "by word" / "n01440764" / "0.png").write_bytes(pictures(1, 3)[0].data)
    with pytest.raises(ValueError, match="one class under two names, n01440764 and tench"):
        evaluate(tmp_path / "words", data=str(tmp_path / "by word"), cache=False)
    (tmp_path / "by id" / "n00000000").mkdir()
    (tmp_path / "by id" / "n00000000" / "0.png").write_bytes(pictures(1, 3)[0].data)
    with pytest.raises(ValueError, match=r"lacks: n00000000; it has .* and 995 others$"):
        evaluate(tmp_path / "words", data=str(tmp_path / "by id"), cache=False)


def test_a_training_on_imagenets_folders_keeps_fc8(tmp_path, capsys):
    """A network of two words, trained on two folders with the ids, keeps its fc8, in the folders' order."""
    torch.save(foreign.state_dict(foreign.plain("A", window=1, classes=2), "torchvision"), tmp_path / "net.pth")
    (tmp_path / "names.txt").write_text("tabby\ntench\n")
    import_weights(tmp_path / "net.pth", tmp_path / "run", class_names=str(tmp_path / "names.txt"))
    samples = pictures(8, 0)
    train_part = memory_source(classes=("n01440764", "n02123045"), samples=samples)
    noise = Splits(name="noise", sources={"train": train_part, "val": train_part})
    still = {"crop": 32, "width": 1 / 16, "epochs": 1, "batch": 4, "learning_rate": 1e-30, "weight_decay": 0}
    recipe = Recipe(**still, finetune=str(tmp_path / "run"))
    out = train(noise, network="A", out=tmp_path / "out", recipe=recipe)
    assert "fc8 is new" not in capsys.readouterr().err
    assert torch.allclose(load(out).fc8.bias, load(tmp_path / "run").fc8.bias.flip(0), rtol=1e-6)


def test_a_run_keeps_its_names_when_it_is_imported_again(tmp_path):
    torch.save(foreign.state_dict(foreign.plain("A", window=1, classes=1000), "torchvision"), tmp_path / "net.pth")
    import_weights(tmp_path / "net.pth", tmp_path / "run", class_names="wnids")
    import_weights(tmp_path / "run", tmp_path / "again")
    assert load_model(tmp_path / "again").classes == tuple(ilsvrc_classes())
    import_weights(tmp_path / "run", tmp_path / "words", class_names="words")
    assert load_model(tmp_path / "words").classes == tuple(ilsvrc_classes().values())


def test_imagenets_names_come_with_a_thousand_outputs(tmp_path):
    torch.save(foreign.state_dict(foreign.plain("A", window=1, classes=1000), "torchvision"), tmp_path / "net.pth")
    for chosen in ("words", "wnids"):
        import_weights(tmp_path / "net.pth", tmp_path / chosen, class_names=chosen)
    assert load_model(tmp_path / "words").classes[:2] == ("tench", "goldfish")
    assert load_model(tmp_path / "wnids").classes == tuple(ilsvrc_classes())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_names": "wnids"}, "wnids are for 1,000 outputs, not 6"),
        ({"class_names": "nowhere.txt"}, "there is no file nowhere.txt"),
        ({"network": "F"}, "unknown network 'F'"),
        ({"trained": TrainedPreprocessing(white=255)}, "give mean and std in that range too"),
        ({"trained": TrainedPreprocessing(mean=(103.9, 116.8, 123.7))}, "mean must be numbers from 0 to 1"),
        ({"trained": TrainedPreprocessing(std=(0.0, 1.0, 1.0))}, "std must be numbers above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path, options, message):
    torch.save(foreign.state_dict(foreign.plain("A"), "torchvision"), tmp_path / "net.pth")
    with pytest.raises(ValueError, match=message) as caught:
        import_weights(tmp_path / "net.pth", tmp_path / "run", **options)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def test_our_own_weights_have_their_mean(tmp_path):
    torch.save(foreign.state_dict(foreign.plain("A"), "torchvision"), tmp_path / "net.pth")
    imported(tmp_path / "net.pth", tmp_path)
    for own in (tmp_path / "run", tmp_path / "run" / "model" / "model.safetensors"):
        with pytest.raises(ValueError, match="its mean is part of its weights"):
            import_weights(own, tmp_path / "again", trained=TrainedPreprocessing(channels="bgr"))
        for taken in (TakenWeights(convolutions_only=True), TakenWeights(crop=CROP), TakenWeights(ema=True)):
            with pytest.raises(ValueError, match="it is a run, which is imported as a whole: leave out"):
                import_weights(own, tmp_path / "again", taken=taken)
    with pytest.raises(ValueError, match="run exists: choose another folder"):
        import_weights(tmp_path / "net.pth", tmp_path / "run")
