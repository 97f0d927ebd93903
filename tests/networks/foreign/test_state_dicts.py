"""State dicts as people have them: other heads, other names, wrappers, averages beside raw weights, other pixels."""

import foreign_weights as foreign
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from verydeep import TakenWeights, TrainedPreprocessing, import_weights, load, load_model, vgg
from verydeep.networks.foreign import first_layer, state_dict_names
from verydeep.networks.foreign.first_layer import _OXFORD_FILTERS, _OXFORD_ROWS, oxford_channels
from verydeep.reproduction.paper import TABLE_4, reported

RGB = foreign.images(64)
CHANNELS = 32
PLAIN = foreign.plain("A")
STATE = foreign.state_dict(PLAIN, "torchvision")
CONVOLUTIONS = {name: value for name, value in STATE.items() if name.startswith("features.")}


def random(*shape, seed=1):
    scale = (2 / shape[1]) ** 0.5 if len(shape) > 1 else 0.2
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def saved(state, folder, name="net.pth"):
    torch.save(state, folder / name)
    return folder / name


def scores(folder):
    with torch.no_grad():
        return load(folder / "run")(torch.from_numpy(RGB)).numpy()


def pool5(net=PLAIN, pixels=None):
    return foreign.features(net, foreign.torch_pixels(RGB) if pixels is None else pixels)


def head(*sizes, names, seed=1):
    layers = {}
    for number, (name, inputs, outputs) in enumerate(zip(names, sizes[:-1], sizes[1:], strict=True)):
        layers |= {f"{name}.weight": random(outputs, inputs, seed=seed + number), f"{name}.bias": random(outputs)}
    return layers


def applied(layers, names, x, relus):
    for name, relu in zip(names, relus, strict=True):
        x = x @ layers[f"{name}.weight"].numpy().T.astype(float) + layers[f"{name}.bias"].numpy()
        x = np.maximum(x, 0) if relu else x
    return x


@pytest.mark.parametrize(
    ("names", "sizes", "relus"),
    [
        (("classifier.0", "classifier.3"), (64, 10), (True, False)),
        (("classifier.1", "classifier.4", "classifier.6"), (100, 50, 7), (True, True, False)),
        (("classifier.fc1", "classifier.fc2"), (64, 10), (True, False)),
        (("classifier.0", "classifier.1"), (200, 10), (False, False)),  # nothing can stand between them
        (("classifier",), (12,), (False,)),
    ],
)
def test_other_heads(tmp_path, names, sizes, relus):
    layers = head(4 * CHANNELS, *sizes, names=names)
    found = import_weights(saved(CONVOLUTIONS | layers, tmp_path), tmp_path / "run")
    expected = applied(layers, names, pool5().reshape(len(RGB), -1), relus)
    assert np.abs(scores(tmp_path) - expected).max() < 1e-4
    assert found.classes == sizes[-1]
    assert any("ReLUs are assumed" in note for note in found.notes) == any(relus)


@pytest.mark.parametrize(
    ("names", "sizes"),
    [(("hidden", "classifier"), (CHANNELS, 10)), (("classifier.1", "classifier.4", "classifier.10"), (64, 64, 10))],
)
def test_a_head_in_the_order_of_its_names_is_put_in_that_of_its_sizes(tmp_path, names, sizes, monkeypatch):
    """As a safetensors file has it."""
    monkeypatch.setattr(state_dict_names, "_LARGEST_STEP", 6)
    layers = head(4 * CHANNELS, *sizes, names=names)
    save_file(CONVOLUTIONS | layers, tmp_path / "net.safetensors")
    import_weights(tmp_path / "net.safetensors", tmp_path / "run")
    relus = [True] * (len(names) - 1) + [False]
    assert np.abs(scores(tmp_path) - applied(layers, names, pool5().reshape(len(RGB), -1), relus)).max() < 1e-4


def test_a_head_of_as_many_numbers_as_channels_must_be_told_its_crop(tmp_path):
    layers = head(CHANNELS, 133, names=["fc"])
    file = saved(CONVOLUTIONS | layers, tmp_path)
    with pytest.raises(ValueError, match=r"--crop 32 or --crop 224; for its convolutions alone .* --convolutions-only"):
        import_weights(file, tmp_path / "run")
    for crop in (0, 31, -64):
        with pytest.raises(ValueError, match=f"^crop must be 32 pixels or more, not {crop}$"):
            TakenWeights(crop=crop)
    import_weights(file, tmp_path / "run", taken=TakenWeights(crop=64))
    expected = applied(layers, ["fc"], pool5().mean(axis=(2, 3)), [False])
    assert np.abs(scores(tmp_path) - expected).max() < 1e-4


def test_one_output_is_the_logit_of_the_second_class(tmp_path):
    layers = head(4 * CHANNELS, 1, names=["classifier.0"])
    import_weights(saved(CONVOLUTIONS | layers, tmp_path), tmp_path / "run")
    expected = 1 / (1 + np.exp(-applied(layers, ["classifier.0"], pool5().reshape(len(RGB), -1), [False])))
    found = torch.from_numpy(scores(tmp_path)).softmax(dim=1)[:, 1:].numpy()
    assert np.abs(found - expected).max() < 1e-4


NORM = {"classifier.1.weight": torch.ones(10), "classifier.1.running_mean": torch.zeros(10)}


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (head(4 * CHANNELS, 10, names=["classifier.0"]) | NORM, "its head has classifier.1.weight"),
        (head(2 * CHANNELS, 10, names=["1.4"]), "its head takes 64 numbers"),  # maximum and mean, as fastai
        (head(4 * CHANNELS, 10, 5, names=["classifier.0", "classifier.6"]), "layers are missing"),
        (head(4 * CHANNELS, 9000, 5, names=["classifier.0", "classifier.3"]), "a layer of 9,000 units"),
    ],
)
def test_other_heads_leave_the_convolutions(tmp_path, layers, message):
    file = saved(CONVOLUTIONS | layers, tmp_path)
    with pytest.raises(ValueError, match=f"{message}.*alone add --convolutions-only"):
        import_weights(file, tmp_path / "run")
    import_weights(file, tmp_path / "run", taken=TakenWeights(convolutions_only=True))
    assert load_model(tmp_path / "run").random_layers == ("fc6", "fc7", "fc8")
    check_pool5(tmp_path, pool5())


def check_pool5(folder, expected):
    with torch.no_grad():
        found = load(folder / "run").activations(torch.from_numpy(RGB), ["pool5"])["pool5"].numpy()
    assert np.abs(found - expected).max() < 1e-4 * max(1, expected.max())


def lpips():
    slices = {0: 1, 3: 2, 6: 3, 8: 3, 11: 4, 13: 4, 16: 5, 18: 5}
    names = {
        f"net.slice{part}.{number}.{kind}": f"features.{number}.{kind}"
        for number, part in slices.items()
        for kind in ("weight", "bias")
    }
    return {name: CONVOLUTIONS[theirs] for name, theirs in names.items()} | {
        "lin0.model.1.weight": torch.ones(1, 64, 1, 1)
    }


@pytest.mark.parametrize(
    ("state", "note"),
    [
        (CONVOLUTIONS, None),
        ({name.replace("features.", "0.0."): value for name, value in CONVOLUTIONS.items()}, None),  # fastai
        ({name.replace("features.", "backbone."): value for name, value in CONVOLUTIONS.items()}, None),
        (lpips(), "ignored everything but the convolutions: lin0.model.1.weight (1 in all)"),
    ],
)
def test_names_of_convolutions(tmp_path, state, note):
    found = import_weights(saved(state, tmp_path), tmp_path / "run")
    assert found.notes[:-1] == ((note,) if note else ())
    check_pool5(tmp_path, pool5())


def biases(state):
    """Names of the biases of convolutions in a state dict of torchvision's, timm's or the paper's names."""
    kernels = [name for name, value in state.items() if value.ndim == 4 and name.startswith(("features", "conv"))]
    return [name.replace(".weight", ".bias") for name in kernels]


NORMALISED = foreign.plain("A", batch_norm=True)


@pytest.mark.parametrize("layout", ["torchvision", "timm", "verydeep"])
def test_convolutions_without_biases_are_those_with_zeros(tmp_path, layout):
    if layout == "verydeep":
        state = vgg("A", classes=6, crop=64, width=1 / 16, batch_norm=True).state_dict()
    else:
        state = foreign.state_dict(NORMALISED, layout)
    assert len(biases(state)) == 8
    zeros = {name: torch.zeros_like(state[name]) for name in biases(state)}
    without = {name: value for name, value in state.items() if name not in zeros}
    found = import_weights(saved(without, tmp_path), tmp_path / "run")
    assert (found.batch_norm, found.notes) == (True, ("its convolutions have no biases, which are taken as 0",))
    same = import_weights(saved({**state, **zeros}, tmp_path, "zeros.pth"), tmp_path / "zeros")
    assert same.notes == ()
    had, expected = (load(tmp_path / name).state_dict() for name in ("run", "zeros"))
    assert had.keys() == expected.keys()
    assert all(torch.equal(had[name], expected[name]) for name in expected)


def test_biases_that_some_convolutions_have_are_missed_at_the_others(tmp_path):
    for left in (1, 7):
        state = foreign.state_dict(NORMALISED, "torchvision")
        for name in biases(state)[:left]:
            del state[name]
        with pytest.raises(ValueError, match=r"conv1_1\.bias is missing, which A has"):
            import_weights(saved(state, tmp_path), tmp_path / "run")


@pytest.mark.parametrize("path", [("net",), ("weights",), ("checkpoint", "generator"), ("model_state_dict", "module")])
def test_any_wrapper(tmp_path, path):
    content = STATE
    for key in reversed(path):
        content = {key: content, "epoch": 3}
    import_weights(saved(content, tmp_path), tmp_path / "run")
    assert np.abs(scores(tmp_path) - foreign.scores(PLAIN, foreign.torch_pixels(RGB))).max() < 1e-4


def test_a_network_that_is_left_out_beside_the_usual_key_is_named(tmp_path):
    found = import_weights(saved({"model": STATE, "teacher": STATE}, tmp_path), tmp_path / "run")
    assert found.notes == ("'model' was taken; 'teacher' was left out: save it alone to take it",)


def test_keys_are_named_where_there_are_no_weights(tmp_path):
    content = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2, 3, 3, 3)}}}, "lr": 0.1}
    with pytest.raises(ValueError, match="it holds no weights: its keys are epoch, optimizer, lr"):
        import_weights(saved(content, tmp_path), tmp_path / "run")


@pytest.mark.parametrize("form", ["keys", "prefixes"])
def test_averaged_weights(tmp_path, form):
    other = foreign.plain("A", seed=5)
    average = foreign.state_dict(other, "torchvision")
    if form == "keys":
        content = {"state_dict": STATE, "state_dict_ema": average}
    else:
        content = {f"model.{name}": value for name, value in STATE.items()}
        content |= {f"model_ema.{name}": value for name, value in average.items()}
    file = saved(content, tmp_path)
    for net, ema, way in ((PLAIN, False, "--ema takes them"), (other, True, "without --ema")):
        found = import_weights(file, tmp_path / f"run{ema}", taken=TakenWeights(ema=ema))
        assert way in found.notes[0]
        with torch.no_grad():
            had = load(tmp_path / f"run{ema}")(torch.from_numpy(RGB)).numpy()
        assert np.abs(had - foreign.scores(net, foreign.torch_pixels(RGB))).max() < 1e-4
    with pytest.raises(ValueError, match="it has no averaged weights"):
        import_weights(saved({"model": STATE}, tmp_path, "raw.pth"), tmp_path / "none", taken=TakenWeights(ema=True))


def oxford(order):
    """Full width in conv1_1, with six of Oxford's filters."""
    net = foreign.plain("A", white=255)
    first = np.random.default_rng(0).normal(size=(64, 3, 3, 3)).astype(np.float32) / 300
    rows = _OXFORD_ROWS.numpy() if order == "rgb" else _OXFORD_ROWS.numpy()[:, ::-1]
    first[list(_OXFORD_FILTERS)] = 0
    first[list(_OXFORD_FILTERS), :, 0] = rows
    return torch.from_numpy(first), net


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_oxfords_filters_tell_the_order_of_channels(order):
    first, _ = oxford(order)
    assert oxford_channels(first) == order
    assert oxford_channels(first * torch.rand(64, 1, 1, 1)) == order  # as Gatys' weights, scaled filter by filter
    noise = torch.randn(first.shape, generator=torch.Generator().manual_seed(0))
    assert oxford_channels(first + 0.01 * noise) == order  # trained further
    assert oxford_channels(noise) is None


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_oxfords_filters_decide_how_pixels_are_prepared(tmp_path, monkeypatch, order):
    """In torchvision's names, as somebody converted them from Caffe; only four filters, as a narrow network has."""
    monkeypatch.setattr(first_layer, "_OXFORD_FILTERS", (0, 1, 2, 3))
    monkeypatch.setattr(first_layer, "_OXFORD_ROWS", _OXFORD_ROWS[:4])
    net = foreign.plain("A", white=255)
    first = net.convolutions[0][2]
    first[:, :, 0] = _OXFORD_ROWS[:4].numpy()[:, :: 1 if order == "rgb" else -1] / 8
    import_weights(saved(foreign.state_dict(net, "torchvision"), tmp_path), tmp_path / "run")
    pixels = foreign.rgb_pixels(RGB) if order == "rgb" else foreign.caffe_pixels(RGB)
    assert np.abs(scores(tmp_path) - foreign.scores(net, pixels)).max() < 1e-4


@pytest.mark.parametrize(
    ("network", "classes", "told"), [("D", 1000, True), ("E", 1000, True), ("A", 1000, False), ("D", 6, False)]
)
@pytest.mark.parametrize("options", [{}, {"channels": "bgr", "white": 255, "mean": foreign.RGB_MEAN[::-1]}])
def test_oxfords_weights_are_noted_to_be_tested_at_the_papers_scales(
    tmp_path, monkeypatch, network, classes, told, options
):
    monkeypatch.setattr(first_layer, "_OXFORD_FILTERS", (0, 1, 2, 3))
    monkeypatch.setattr(first_layer, "_OXFORD_ROWS", _OXFORD_ROWS[:4])
    net = foreign.plain(network, white=255, classes=classes)
    net.convolutions[0][2][:, :, 0] = _OXFORD_ROWS[:4].numpy()[:, ::-1] / 8
    trained = TrainedPreprocessing(**options, **({"std": (1.0, 1.0, 1.0)} if options else {}))
    found = import_weights(saved(foreign.state_dict(net, "torchvision"), tmp_path), tmp_path / "run", trained=trained)
    said = [note for note in found.notes if "--scales" in note]
    assert len(said) == told
    if told:
        row = reported(TABLE_4, network, "256:512")
        assert said[0].endswith(f"test with --scales {','.join(map(str, row.test))}")


def test_other_weights_are_not_noted_to_be_tested_at_other_scales(tmp_path):
    file = saved(foreign.state_dict(foreign.plain("D", classes=1000), "torchvision"), tmp_path)
    assert import_weights(file, tmp_path / "run").notes == ()


def test_pixels_in_0_to_255_are_refused_unless_told(tmp_path):
    net = foreign.plain("A", white=255)
    file = saved(foreign.state_dict(net, "torchvision"), tmp_path)
    with pytest.raises(ValueError, match=r"for pixels in 0..255, as converted from Caffe.*--channels bgr"):
        import_weights(file, tmp_path / "run")
    trained = TrainedPreprocessing(channels="bgr", white=255, mean=foreign.RGB_MEAN[::-1], std=(1.0, 1.0, 1.0))
    import_weights(file, tmp_path / "run", trained=trained)
    assert np.abs(scores(tmp_path) - foreign.scores(net, foreign.caffe_pixels(RGB))).max() < 1e-4


def test_the_papers_names_without_a_mean_are_caffes(tmp_path):
    """As Gatys' vgg_conv.pth: conv1_1.weight, for BGR in 0..255."""
    net = foreign.plain("E", white=255)
    state = {}
    for stage, position, kernel, bias, _ in net.convolutions:
        name = f"conv{stage}_{position}"
        state |= {f"{name}.weight": torch.from_numpy(kernel), f"{name}.bias": torch.from_numpy(bias)}
    save_file(state, tmp_path / "vgg_conv.safetensors")
    found = import_weights(tmp_path / "vgg_conv.safetensors", tmp_path / "run")
    assert (found.layout, found.network) == ("caffe", "E")
    check_pool5(tmp_path, pool5(net, foreign.caffe_pixels(RGB)))


def test_the_librarys_mean_goes_with_its_colour_where_only_the_order_of_channels_is_told(tmp_path):
    net = foreign.plain("A")
    file = saved(foreign.state_dict(net, "torchvision"), tmp_path)
    import_weights(file, tmp_path / "run", trained=TrainedPreprocessing(channels="bgr"))
    assert np.abs(scores(tmp_path) - foreign.scores(net, foreign.torch_pixels(RGB)[:, ::-1])).max() < 1e-4
    net = foreign.plain("D", white=255)
    (tmp_path / "rgb").mkdir()
    file = tmp_path / "rgb" / "net.caffemodel"
    file.write_bytes(foreign.caffemodel(net, old=False))
    import_weights(file, file.parent / "run", trained=TrainedPreprocessing(channels="rgb"))
    assert np.abs(scores(file.parent) - foreign.scores(net, foreign.rgb_pixels(RGB))).max() < 1e-4


def test_the_order_of_channels_alone_does_not_tell_the_range_of_pixels(tmp_path):
    file = saved(foreign.state_dict(foreign.plain("A", white=255), "torchvision"), tmp_path)
    with pytest.raises(ValueError, match=r"for pixels in 0\.\.255, as converted from Caffe"):
        import_weights(file, tmp_path / "run", trained=TrainedPreprocessing(channels="bgr"))
