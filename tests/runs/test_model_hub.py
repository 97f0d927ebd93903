"""Models of the hub by a stand-in for huggingface_hub's functions that keeps repositories in a folder."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from safetensors.torch import save_file

from verydeep import Recipe, evaluate, import_weights, load, predict, push, save, train, vgg
from verydeep.cli import main
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import Splits
from verydeep.runs import model_hub
from verydeep.runs.model import load_model, weights_fingerprint
from verydeep.runs.record import read_record
from verydeep.serving.options import Limits
from verydeep.serving.prepared_images import prepared
from verydeep.serving.served_model import Wanted, served_model

OWNER = "someone"


class Hub:
    """Repositories as folders; `failure` is raised in place of an answer. What is downloaded lies in a cache."""

    def __init__(self, root):
        self.root, self.failure, self.private, self.asked, self.files = root, None, {}, [], []

    def snapshot_download(self, repository, *, revision=None, allow_patterns=None):
        self.asked.append((repository, revision, allow_patterns))
        huggingface_hub.utils.validate_repo_id(repository)
        if self.failure:
            raise self.failure
        folder = self.root / repository
        if not folder.is_dir():
            raise http(errors.RepositoryNotFoundError, 404)
        state = self.root / "cache" / repository / "snapshots" / (revision or "0123abc")
        for file in folder.iterdir():
            if file.name in allow_patterns and not (state / file.name).exists():
                state.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, state)
                self.files.append(file.name)
        return str(state)

    def create_repo(self, repository, *, private, exist_ok):
        assert exist_ok
        huggingface_hub.utils.validate_repo_id(repository)
        if self.failure:
            raise self.failure
        self.private.setdefault(repository, private)
        return huggingface_hub.RepoUrl(f"{huggingface_hub.constants.ENDPOINT}/{repository}")

    def create_commit(self, repository, operations, *, commit_message):
        folder = self.root / repository
        folder.mkdir(parents=True, exist_ok=True)
        for operation in operations:
            with operation.as_file() as file:
                (folder / operation.path_in_repo).write_bytes(file.read())


def http(kind, status):
    """One of the library's errors with an answer, whatever its constructor wants."""
    error = kind.__new__(kind)
    Exception.__init__(error, f"{status} Client Error.\n\nRepository Not Found for url.")
    error.response, error.server_message = SimpleNamespace(status_code=status), None
    return error


@pytest.fixture
def hub(tmp_path, monkeypatch):
    found = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", found.snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: found)
    model_hub.downloaded.cache_clear()
    yield found
    model_hub.downloaded.cache_clear()


@pytest.fixture
def net():
    torch.manual_seed(0)
    return vgg("A", classes=2, crop=32, width=0.05, mean_rgb=(1.5, 2.5, 3.5))


def pictures(count):
    import io

    from PIL import Image

    samples = []
    for index in range(count):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 40), (250 * (index % 2),) * 3).save(buffer, "PNG")
        samples.append(Sample(buffer.getvalue(), index % 2, f"{index}.png"))
    return memory_source(classes=("dark", "light"), samples=tuple(samples))


def test_a_saved_network_loads_as_it_was(net, tmp_path):
    assert save(net, tmp_path / "model", classes=["dark", "light"], scale="256:512", flip=False) == tmp_path / "model"
    model = load_model(tmp_path / "model")
    assert (model.classes, model.scale, model.flip) == (("dark", "light"), "256:512", False)
    assert all(torch.equal(value, model.net.state_dict()[name]) for name, value in net.state_dict().items())
    save(net, tmp_path / "model")
    assert load_model(tmp_path / "model").classes == ("class 0", "class 1")


def test_what_cannot_be_saved(net, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    for options, message in (
        ({"classes": ["dark"]}, "2 distinct class names are needed, not 1"),
        ({"classes": ["dark", "dark"]}, "2 distinct class names"),
        ({"scale": "100"}, "S goes from 224 to 10,000"),
        ({"folder": tmp_path / "photos"}, "photos contains something other than a model"),
    ):
        with pytest.raises(ValueError, match=message):
            save(net, **{"folder": tmp_path / "model", **options})
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_pushed_model_is_used_like_a_run(hub, net, tmp_path):
    save(net, tmp_path / "model", classes=["dark", "light"])
    address = push(tmp_path / "model", f"hub:{OWNER}/net", private=True)
    assert address.endswith(f"{OWNER}/net")
    assert hub.private == {f"{OWNER}/net": True}
    assert sorted(path.name for path in (hub.root / OWNER / "net").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    name = f"hub:{OWNER}/net"
    assert torch.equal(load(name).fc8.weight, net.fc8.weight)
    config, weights = hub.asked
    assert config == (f"{OWNER}/net", None, ["config.json"])
    assert weights == (f"{OWNER}/net", "0123abc", ["model.safetensors"])  # of the same state, and no file but these
    noise = Splits(name="noise", sources={"train": pictures(6), "val": pictures(4)})
    assert evaluate(name, data=noise, cache=False).per_run[0].name == name
    picture = tmp_path / "picture.png"
    picture.write_bytes(pictures(1)[0].data)
    (predicted,) = predict(name, [picture])
    assert len(predicted.classes) == 2
    served = served_model(Path(name))
    (found,) = served.predict([prepared(picture.read_bytes(), served.sides, Limits())], [Wanted("image 0", 5)])
    assert replace(found.prediction, image=predicted.image) == predicted
    out = train(noise, out=tmp_path / "run", recipe=Recipe(crop=32, width=0.05, epochs=1, batch=4, finetune=name))
    assert read_record(out).fingerprints["finetune"] == weights_fingerprint(tmp_path / "model")
    assert import_weights(name, tmp_path / "imported").layout == "verydeep"
    push(out, f"hub:{OWNER}/tuned")
    card = (hub.root / OWNER / "tuned" / "README.md").read_text()
    assert "on noise: 6 train, 4 val images, 1 epoch, seed 0." in card


def test_the_page_of_the_best_epoch_tells_of_its_training(hub, tmp_path, monkeypatch):
    noise = Splits(name="noise", sources={"train": pictures(6), "val": pictures(4)})
    out = train(noise, network="A", out=tmp_path / "run", recipe=Recipe(crop=32, width=0.05, epochs=1, batch=4))
    first = json.loads((out / "metrics.jsonl").read_text())
    lines = [first | {"epoch": epoch, "validation_error": error} for epoch, error in ((1, 40), (2, 12.5), (3, 25))]
    (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.chdir(out / "best")
    trained = "on noise: 6 train, 4 val images, 3 epochs, seed 0."
    for run, figure in (
        (out, "training, after the last epoch: 25.0%."),
        (out / "best", "the weights after epoch 2, whose top-1 error of centre crops on the validation images"),
        (".", "which steered the training, is the lowest: 12.5%."),
    ):
        push(run, f"hub:{OWNER}/net")
        card = (hub.root / OWNER / "net" / "README.md").read_text()
        assert trained in card
        assert figure in card


def test_a_revision_is_asked_for(hub, net, tmp_path):
    save(net, tmp_path / "hub" / OWNER / "net")
    load(f"hub:{OWNER}/net@v2")
    assert [asked[1] for asked in hub.asked] == ["v2", "v2"]


def test_the_page_of_a_model_says_what_the_run_knows(hub, net, tmp_path):
    save(net, tmp_path / "model", classes=["dark", "li`ght"])
    push(tmp_path / "model", f"hub:{OWNER}/net")
    card = (hub.root / OWNER / "net" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: verydeep\npipeline_tag: image-classification\n")
    assert f"verydeep predict hub:{OWNER}/net picture.jpg" in card
    assert f"verydeep train FOLDER --finetune hub:{OWNER}/net --out RUN\n" in card
    assert "The mean RGB, 1.5, 2.5, 3.5," in card
    assert "has no record of a training" in card
    assert card.endswith("- `dark`\n- `li'ght`\n")
    torch.save({f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "n`et.pth")
    import_weights(tmp_path / "n`et.pth", tmp_path / "imported")
    push(tmp_path / "imported", f"hub:{OWNER}/other")
    card = (hub.root / OWNER / "other" / "README.md").read_text()
    assert "Imported from `n'et.pth` (layout: verydeep, SHA-256" in card
    assert "The weights come from elsewhere: the licence of their source has to be stated here.\n\n## Classes" in card
    record = json.loads((tmp_path / "imported" / "run.json").read_text())
    record["imported"]["layout"], record["source"] = "[a](b)\n# c", "hub:o/n\nlicense: mit"
    (tmp_path / "imported" / "run.json").write_text(json.dumps(record))
    push(tmp_path / "imported", f"hub:{OWNER}/third")
    card = (hub.root / OWNER / "third" / "README.md").read_text()
    assert r"(layout: \[a\](b) \# c, SHA-256" in card
    assert "license: mit" not in card
    with pytest.raises(ValueError, match="'my licence: none' is not the name of a licence"):
        push(tmp_path / "imported", f"hub:{OWNER}/other", license="my licence: none")


@pytest.mark.parametrize(
    ("failure", "kind", "message"),
    [
        (lambda: None, ValueError, "there is no hub:someone/net on the hub, or it is private"),
        (lambda: http(errors.RepositoryNotFoundError, 401), ValueError, "hf auth login"),
        (lambda: http(errors.GatedRepoError, 403), ValueError, "agreed to its terms"),
        (lambda: http(errors.RevisionNotFoundError, 404), ValueError, "no such revision"),
        (lambda: http(errors.HfHubHTTPError, 503), OSError, "the hub answers 503"),
        (lambda: errors.LocalEntryNotFoundError("no\nnet"), OSError, "the hub cannot be reached"),
        (lambda: errors.OfflineModeIsEnabled("offline"), OSError, "the hub cannot be reached"),
        (lambda: RuntimeError("a\nsocket"), OSError, "a socket"),
    ],
)
def test_what_can_go_wrong_when_a_model_is_fetched(hub, failure, kind, message):
    hub.failure = failure()
    with pytest.raises(kind, match=message) as caught:
        load(f"hub:{OWNER}/net")
    assert "\n" not in str(caught.value)


def test_what_can_go_wrong_when_a_model_is_pushed(hub, net, tmp_path):
    save(net, tmp_path / "model")
    with pytest.raises(ValueError, match="are called hub:OWNER/MODEL, not 'net'"):
        push(tmp_path / "model", "net")
    with pytest.raises(ValueError, match="a model is called hub:OWNER/MODEL"):
        push(tmp_path / "model", "hub:a/b/c")
    for failure, message in (
        (errors.LocalTokenNotFoundError("no token"), "you are not logged in to the hub: hf auth login"),
        (http(errors.HfHubHTTPError, 401), "hf auth login, with a token that may write"),
        (http(errors.HfHubHTTPError, 403), "the hub does not allow you this"),
    ):
        hub.failure = failure
        with pytest.raises(ValueError, match=message):
            push(tmp_path / "model", f"hub:{OWNER}/net")
    with pytest.raises(ValueError, match="does not exist: name a run"):
        push(tmp_path / "nowhere", f"hub:{OWNER}/net")


def test_models_of_others_are_imported_not_loaded(hub, tmp_path):
    folder = hub.root / OWNER / "net"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"is not a model of verydeep: verydeep import hub:someone/net --out RUN"):
        load(f"hub:{OWNER}/net")
    (folder / "config.json").write_text(json.dumps({"architecture": "vgg16"}))
    (folder / "model.safetensors").write_bytes(bytes(10))
    model_hub.downloaded.cache_clear()
    with pytest.raises(ValueError, match="is not a model of verydeep"):
        load(f"hub:{OWNER}/net")
    assert hub.files == ["config.json"]  # and not half a gigabyte


@pytest.mark.parametrize("there", [("model.safetensors", "pytorch_model.bin"), ("pytorch_model.bin",)])
def test_one_file_of_weights_is_downloaded(hub, net, tmp_path, there):
    folder = hub.root / OWNER / "net"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    torch.save(net.state_dict(), tmp_path / "net.bin")
    for name in there:
        (folder / name).write_bytes((tmp_path / f"net{Path(name).suffix}").read_bytes())
    found = import_weights(f"hub:{OWNER}/net@v2", tmp_path / "run")
    assert hub.files == ["config.json", there[0]]
    assert hub.asked[0][1] == hub.asked[1][1] == "v2"
    assert found.file == there[0]
    push(tmp_path / "run", f"hub:{OWNER}/again", license="bsd-3-clause")
    card = (hub.root / OWNER / "again" / "README.md").read_text()
    assert card.startswith(f"---\nlibrary_name: verydeep\nlicense: bsd-3-clause\nbase_model: {OWNER}/net\npipeline_tag")
    assert f"Imported from `{there[0]}` of {OWNER}/net (layout" in card
    assert "has to be stated" not in card


def test_the_package_may_be_missing(monkeypatch, net, tmp_path):
    model_hub.downloaded.cache_clear()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    save(net, tmp_path / "model")
    for used in (lambda: load(f"hub:{OWNER}/net"), lambda: push(tmp_path / "model", f"hub:{OWNER}/net")):
        with pytest.raises(ValueError, match=r"needs the package huggingface_hub: pip install 'verydeep\[hub\]'"):
            used()


def run(*arguments):
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as left:
        return left.code or 0
    return 0


def test_the_command_line(hub, net, tmp_path, capsys):
    torch.save(net.state_dict(), tmp_path / "net.pth")
    assert run("import", tmp_path / "net.pth", "--out", tmp_path / "run", "--json", tmp_path / "found.json") == 0
    assert "A, width 0.05, crop 32" in capsys.readouterr().out
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["network"], found["layout"], found["mean_rgb"]) == ("A", "verydeep", [1.5, 2.5, 3.5])
    assert run("push", tmp_path / "run", f"hub:{OWNER}/net", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out)["address"].endswith(f"{OWNER}/net")
    assert run("import", f"hub:{OWNER}/net", "--out", tmp_path / "again") == 0
    assert run("import", tmp_path / "net.pth", "--out", tmp_path / "run") == 2
    assert "exists: choose another folder" in capsys.readouterr().err
    for option, value in (("--mean", "1,2"), ("--std", "a,b,c"), ("--mean", "1/0,1,1")):
        assert run("import", tmp_path / "net.pth", "--out", tmp_path / "other", option, value) == 2
        assert f"{option} takes three numbers separated by commas" in capsys.readouterr().err
