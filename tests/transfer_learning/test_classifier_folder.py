"""The folder of a classifier of features: nothing in it is lost, and damage is reported in one line."""

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import several_commands as commands
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_networks import save_network
from safetensors.numpy import load_file, save_file

import verydeep
from verydeep.transfer_learning import classifier_folder
from verydeep.transfer_learning.classifier_folder import check_classifier_folder, is_classifier, load_classifier

refusal = commands.refusal


def test_a_classifier_that_was_being_replaced_when_the_machine_stopped_is_found(classifier, photos, tmp_path):
    shutil.copytree(classifier, tmp_path / ".classifier.123.old")
    assert is_classifier(tmp_path / "classifier")
    file = photos / "ant" / "0.png"
    assert list(verydeep.classify(tmp_path / "classifier", file)) == list(verydeep.classify(classifier, file))


def files_in(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("notes.txt", "notes.txt"),
        (".hidden", ".hidden"),
        ("transfer.html", "transfer.html"),
        ("1/config.json", "1"),
        ("0/notes.txt", "0/notes.txt"),
        ("folder/", "folder"),
    ],
)
def test_a_folder_that_holds_something_else_is_not_replaced(classifier, tmp_path, name, told):
    """It is refused before any work: the missing run and source are not noticed."""
    folder = tmp_path / "classifier"
    shutil.copytree(classifier, folder)
    check_classifier_folder(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    if name.endswith("/"):
        (folder / name).mkdir()
    else:
        (folder / name).write_text("mine")
    before = files_in(folder)
    with pytest.raises(ValueError, match=r"contains something other than a classifier \((.*)\): choose") as refused:
        verydeep.transfer([tmp_path / "no run"], data="nowhere", out=folder)
    assert f"({told})" in str(refused.value)
    assert files_in(folder) == before


def test_only_a_whole_classifier_makes_its_files_replaceable(classifier, tmp_path):
    folder = tmp_path / "classifier"
    shutil.copytree(classifier, folder)
    (folder / "classifier.json").write_text("{}")
    with pytest.raises(ValueError, match=r"\(0, classifier.json, classifier.safetensors\)"):
        check_classifier_folder(folder)
    for number in range(5):
        (folder / f"{number}.txt").touch()
    with pytest.raises(ValueError, match=r"\(0, 0.txt, 1.txt and 5 others\)"):
        check_classifier_folder(folder)
    with pytest.raises(ValueError, match=r"\(4.txt\)"):
        check_classifier_folder(folder / "4.txt")


@pytest.mark.parametrize("name", ["0", "classifier.safetensors"])
def test_a_folder_with_the_name_of_a_classifiers_file_is_not_replaced(classifier, tmp_path, name):
    folder = tmp_path / "classifier"
    shutil.copytree(classifier, folder)
    if name == "0":
        shutil.rmtree(folder / name)
        (folder / name).write_text("mine")
    else:
        (folder / name).unlink()
        (folder / name).mkdir()
    with pytest.raises(ValueError, match=rf"\({name}\)"):
        check_classifier_folder(folder)


def test_the_working_folder_is_not_replaced(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for out in (Path(), tmp_path / "here"):
        with pytest.raises(ValueError, match="the folder you are in"):
            verydeep.transfer([tmp_path / "no run"], data="nowhere", out=out)
    check_classifier_folder(Path("inside"))


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("mounted", "mounted is a folder of the system and would be replaced: name a folder inside"),
        ("locked/new", "nothing can be written in .*/locked, where .*new would be made anew"),
        ("file/new", "file is a file, in which .*new cannot be made"),
        ("locked/there", "nothing can be written in .*/locked, where .*there would be made anew"),
    ],
)
def test_a_folder_that_cannot_be_made_anew_is_refused_before_any_work(tmp_path, monkeypatch, place, told):
    """As a volume of a container is: what was computed would be lost in the end."""
    (tmp_path / "mounted").mkdir()
    (tmp_path / "locked" / "there").mkdir(parents=True)
    (tmp_path / "file").touch()
    monkeypatch.setattr("os.path.ismount", lambda path: Path(path).name == "mounted")
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "locked" or not mode & os.W_OK)
    with pytest.raises(OSError, match=told):
        verydeep.transfer([tmp_path / "no run"], data="nowhere", out=tmp_path / place)


def test_a_link_to_a_folder_stays_one(run, photos, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    few = verydeep.TransferOptions(train=3, test=2, splits=1)
    for _ in range(2):
        verydeep.transfer([run], data=str(photos), options=few, out=tmp_path / "link")
        assert (tmp_path / "link").is_symlink()
        assert load_classifier(tmp_path / "real").classes == ("ant", "bee")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["link", "real"]


def test_other_files_are_not_written_into_a_classifier(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clf").mkdir()
    (tmp_path / "link").symlink_to("clf")
    on = ["transfer", "no-run", "--data", "nowhere", "--out"]
    for out, place in (("clf", "clf"), ("clf", tmp_path / "clf"), ("link", "clf")):
        assert f"{out} cannot hold both --out and --report" in refusal(capsys, *on, out, "--report", place)
    for out, option, place in (
        ("clf", "--report", "clf/page"),
        ("page/clf", "--report", "page"),
        ("clf", "--json", "clf/found.json"),
    ):
        assert f"--out {out} and {option} {place} must be apart" in refusal(capsys, *on, out, option, place)
    for option, place in (("--report", "clf2"), ("--json", "found.json"), ("--json", "-")):
        assert "must be apart" not in refusal(capsys, *on, "clf", option, place)
    assert "must be apart" not in refusal(capsys, *on, tmp_path, "--json", "-")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["clf", "link"]


@pytest.fixture(scope="module")
def damaged(classifier, tmp_path_factory):
    """Return a function that puts any text as classifier.json into a copy of the classifier."""
    folder = tmp_path_factory.mktemp("damaged") / "classifier"
    shutil.copytree(classifier, folder)

    def write(text):
        (folder / "classifier.json").write_text(text)
        return folder

    return write


def about_of(classifier):
    return json.loads((classifier / "classifier.json").read_text())


def with_hash(about):
    return {**about, "sha256": classifier_folder._sha256(about)}


WRONG = [
    ("classes", ["ant"], "1 class and 410 features do not go with weights"),
    ("classes", ["ant", "bee", "cow"], "3 classes and"),
    ("classes", [1, 2], r"classes\[0\]: text expected, not a whole number"),
    ("classes", ["ant", "ant"], "classes are not distinct names"),
    ("classes", "xy", "classes: a list expected, not text"),
    ("several_labels", 1, "several_labels: true or false expected, not a whole number"),
    ("c", "1", "c: a number expected, not text"),
    ("c", float("nan"), "c is not a number above 0"),
    ("c", True, "c: a number expected, not true or false"),
    ("networks", [], "networks are missing"),
    ("networks", {}, "networks: a list expected, not an object"),
    ("networks", [5], r"networks\[0\]: an object expected, not a whole number"),
    ("format", "1", "format: a whole number expected, not text"),
    ("format", 0, "format is below 1"),
    ("format", 2, "a newer version of verydeep wrote it"),
    ("weights_sha256", "0", "classifier.safetensors has changed since it was saved"),
    ("colour", "red", "it has colour, which this version of verydeep does not know"),
    ("scales", ["x"], r"networks\[0\].scales\[0\]: a whole number expected, not text"),
    ("scales", 5, "scales: a list expected"),
    ("scales", [], "are distinct whole numbers from there up"),
    ("scales", [True], "a whole number expected, not true or false"),
    ("scales", [256.0], "a whole number expected, not a number"),
    ("scales", [256, 256], "are distinct whole numbers from there up"),
    ("scales", [256, 10**400], "it has a number of 401 digits"),
    ("scales", [14336, 14337], "scales are above 14,336, too large"),
    ("scales", [100], "are distinct whole numbers from there up"),
    ("pool", "none", "pool: it cannot be 'none'"),
    ("pool", ["avg"], "pool: text expected, not a list"),
    ("pool", "stack", "do not go with weights"),
    ("mirror", "x", "mirror: true or false expected, not text"),
    ("normalise", None, "normalise: true or false expected, not null"),
    ("model_sha256", "0", "0/model.safetensors is of another network than the classifier was fitted to"),
    ("model_sha256", 5, r"networks\[0\].model_sha256: text or null expected"),
    ("layers", ["relu6"], "it has layers, which this version of verydeep does not know"),
]


@pytest.mark.parametrize(("name", "value", "told"), WRONG)
def test_a_wrong_value_in_a_classifier_is_named(classifier, damaged, name, value, told):
    """With a hash, and without one, as in older classifiers."""
    about = about_of(classifier)
    del about["sha256"]
    (about["networks"][0] if name in {*about["networks"][0], "layers"} else about)[name] = value
    for written in (about, with_hash(about)):
        folder = damaged(json.dumps(written))
        with pytest.raises(ValueError, match=told) as refused:
            load_classifier(folder)
        assert str(refused.value).startswith(f"{folder} does not hold a usable classifier: ")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["format", "classes", "c", "networks", "weights_sha256", "scales", "pool", "mirror"])
def test_a_missing_value_of_a_classifier_is_named(classifier, damaged, name):
    about = about_of(classifier)
    del (about if name in about else about["networks"][0])[name]
    with pytest.raises(ValueError, match=f"has no {name}$"):
        load_classifier(damaged(json.dumps(about)))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "5", "\ud800".encode("utf-8", "surrogatepass"), "[" * 100_000])
def test_a_file_that_is_no_classifier_is_refused_in_a_line(damaged, text):
    folder = damaged("")
    (folder / "classifier.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(
        ValueError, match=r"usable classifier: .*classifier.json.*(it is|its lists|it has no|an object expected)"
    ) as refused:
        load_classifier(folder)
    assert "\n" not in str(refused.value)


def test_values_that_older_classifiers_lack_are_optional(classifier, damaged):
    about = about_of(classifier)
    del about["sha256"], about["several_labels"], about["networks"][0]["model_sha256"]
    loaded = load_classifier(damaged(json.dumps(about, indent=1)))
    assert (loaded.classes, loaded.several_labels) == (("ant", "bee"), False)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"biases": np.zeros(3, np.float32)},
            r"2 classes and 410 features do not go with weights \[2, 410\] and biases",
        ),
        ({"weights": np.zeros((2, 409), np.float32)}, "do not go with weights"),
        ({"weights": np.zeros(410, np.float32)}, "do not go with weights"),
        ({"more": np.zeros(1)}, "classifier.safetensors contains something other than weights and biases"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_a_line(classifier, tmp_path, change, told):
    """Their hash is right."""
    folder = tmp_path / "classifier"
    shutil.copytree(classifier, folder)
    file = folder / "classifier.safetensors"
    save_file({**load_file(file), **change}, file)
    about = {**about_of(classifier), "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    (folder / "classifier.json").write_text(json.dumps(with_hash(about)))
    with pytest.raises(ValueError, match=told):
        load_classifier(folder)


@pytest.fixture(scope="module")
def two_networks(photos, tmp_path_factory):
    """A classifier over two networks of one architecture, and another over one of them."""
    place = tmp_path_factory.mktemp("two networks")
    runs = [save_network(place / f"run {seed}", seed=seed) for seed in (1, 2)]
    few = verydeep.TransferOptions(train=3, test=2, splits=1)
    verydeep.transfer(runs, data=str(photos), options=few, out=place / "both")
    verydeep.transfer(runs[1:], data=str(photos), options=few, out=place / "second")
    return place


@pytest.mark.parametrize("mixed", ["exchanged", "from another classifier"])
def test_a_classifier_knows_its_networks(two_networks, photos, tmp_path, mixed):
    """Other networks of the same sizes would give other scores, without a word."""
    image, folder = photos / "ant" / "0.png", tmp_path / "classifier"
    shutil.copytree(two_networks / "both", folder)
    assert list(verydeep.classify(folder, image)) == list(verydeep.classify(two_networks / "both", image))
    if mixed == "exchanged":
        (folder / "0").rename(folder / "1 as 0")
        (folder / "1").rename(folder / "0")
        (folder / "1 as 0").rename(folder / "1")
    else:
        shutil.rmtree(folder / "0")
        shutil.copytree(two_networks / "second" / "0", folder / "0")
    told = f"{folder} does not hold a usable classifier: 0/model.safetensors is of another network"
    with pytest.raises(ValueError, match=f"^{re.escape(told)} [^\n]*$"):
        load_classifier(folder)


def paths_in(value, path=()):
    """Yield the path of every value in JSON."""
    yield path
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from paths_in(inner, (*path, key))


SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["avg", "stack", 10**400])
)
VALUES = st.recursive(
    SCALARS | st.integers(224, 300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damages(draw, about):
    """Return JSON in which one value is missing, changed, repeated, or has another beside it."""
    about = json.loads(json.dumps(about))
    *path, last = draw(st.sampled_from(list(paths_in(about))[1:]))
    holder = about
    for key in path:
        holder = holder[key]
    what = draw(st.sampled_from(["gone", "other", "more"]))
    if what == "gone":
        del holder[last]
    elif what == "other":
        holder[last] = draw(VALUES)
    elif isinstance(holder, list):
        holder.insert(last, draw(VALUES | st.just(holder[last])))
    else:
        holder[draw(st.text())] = draw(VALUES)
    return about


QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])


def classified(folder, image):
    """Return the classification of an image, or None and why it is refused; other errors are raised."""
    try:
        (found,) = verydeep.classify(folder, image)
    except ValueError as error:
        return None, str(error)
    return found, None


def is_one_line_of_ours(folder, refusal):
    told = f"{folder} does not hold a usable classifier: "
    return refusal.startswith(told) and len(refusal) > len(told) and len(refusal.splitlines()) == 1


@QUICK
@given(data=st.data())
def test_a_damaged_classifier_is_refused_in_a_line_or_says_the_same(classifier, damaged, photos, data):
    image, about = photos / "ant" / "0.png", about_of(classifier)
    folder = damaged(json.dumps(data.draw(damages(about))))
    found, error = classified(folder, image)
    assert is_one_line_of_ours(folder, error) if error else (found, None) == classified(classifier, image)


@QUICK
@given(data=st.data())
def test_damage_without_a_hash_is_refused_in_a_line_or_is_a_classifier(classifier, damaged, photos, data):
    """As in older classifiers: other names or scales may be intended."""
    about = about_of(classifier)
    del about["sha256"]
    written = data.draw(damages(about))
    folder = damaged(json.dumps(written))
    found, error = classified(folder, photos / "ant" / "0.png")
    if error:
        assert is_one_line_of_ours(folder, error)
    else:
        assert found.error or set(found.classes) == set(written["classes"])
        assert np.isfinite(found.scores).all()
