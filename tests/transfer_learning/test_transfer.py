"""Features on other data: splits, choice of C and recalls against naive computations; from images to a classifier."""

import json
from dataclasses import replace
from types import SimpleNamespace

import accessibility
import numpy as np
import pytest
import several_commands as commands
import torch
from PIL import Image
from random_networks import save_network
from sklearn.svm import LinearSVC

from verydeep import Descriptor, features
from verydeep.images.open import open_for_testing
from verydeep.images.sources.source import Sample, memory_source
from verydeep.images.sources.splits import stratified_split
from verydeep.images.tolerance import Tolerance
from verydeep.runs.model import load_model
from verydeep.transfer_learning import features as transfer_features
from verydeep.transfer_learning import linear_svm
from verydeep.transfer_learning import measures as transfer_measures
from verydeep.transfer_learning.classifier_folder import load_classifier
from verydeep.transfer_learning.classify import classify
from verydeep.transfer_learning.compared_descriptors import Compared, SVMOutcome
from verydeep.transfer_learning.features import DescribedImages, pixel_features, untrained
from verydeep.transfer_learning.labels import Labelled, transfer_splits
from verydeep.transfer_learning.linear_svm import CHOICES_OF_C, fit, fit_choosing_c, stacked
from verydeep.transfer_learning.measures import _resampled_recalls, class_recalls, measured
from verydeep.transfer_learning.options import TransferOptions
from verydeep.transfer_learning.results import descriptor_differences, descriptor_results
from verydeep.transfer_learning.transfer import transfer

CLASSES, EACH = ("ant", "bee", "cow"), 9
FEW = TransferOptions(train=4, test=3, splits=2)


run, refusal = commands.status_of, commands.refusal


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two networks with random weights, and pictures whose classes differ by their colour."""
    place = tmp_path_factory.mktemp("transfer")
    for seed, name in enumerate("AB"):
        save_network(place / name, name=name, seed=seed)
    rng = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (place / "photos" / name).mkdir(parents=True)
        for number in range(EACH):
            pixels = rng.integers(0, 40, (40, 44, 3))
            pixels[..., label] += 210
            Image.fromarray(pixels.astype(np.uint8)).save(place / "photos" / name / f"{number}.png")
    return SimpleNamespace(place=place, photos=place / "photos", runs=[place / "A", place / "B"])


def vectors_of(labels, *, noise, seed=0, numbers=12):
    """Return vectors of length 1 around a centre for each class."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(max(labels) + 1, numbers))[labels] + noise * rng.normal(size=(len(labels), numbers))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_splits_are_of_each_class_and_share_no_image():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], (10, 7, 30)))
    draw, labelled = TransferOptions(train=5, test=4, splits=3, seed=1), Labelled(classes=CLASSES, labels=labels)
    found = transfer_splits(labelled, draw)
    assert len(found) == 3
    for train, test in found:
        assert not set(train) & set(test)
        assert len(set(train)) == len(train)
        assert np.bincount(labels[train]).tolist() == [5, 5, 5]
        assert np.bincount(labels[test]).tolist() == [4, 2, 4]
    again = transfer_splits(labelled, draw)
    assert np.array_equal(np.hstack([*map(np.hstack, found)]), np.hstack([*map(np.hstack, again)]))
    other = transfer_splits(labelled, replace(draw, seed=2))
    assert len({tuple(train) for train, _ in [*found, *other]}) == 6


def test_a_class_with_too_few_images_is_named():
    labels = np.repeat([0, 1, 2], (10, 4, 5))
    with pytest.raises(
        ValueError, match=r"needs 6 images of each class or more.*but only 4 of bee, 5 of cow can be used: lower"
    ):
        transfer_splits(Labelled(classes=CLASSES, labels=labels), TransferOptions(train=5))


def test_c_is_the_one_that_does_best_on_the_held_out_fifth():
    labels = np.repeat(range(4), 20)
    chosen = set()
    for seed, noise in enumerate((0.6, 1.0, 1.5, 2.0, 3.0)):
        vectors = vectors_of(labels, noise=noise, seed=seed)
        fitting, choosing = stratified_split(labels.tolist(), 0.2)
        assert len(choosing) == 16
        recalls = {}
        for c in CHOICES_OF_C:
            solver = LinearSVC(C=c, dual=False, tol=1e-8, max_iter=10_000).fit(vectors[fitting], labels[fitting])
            taken = solver.predict(vectors[choosing])
            wrong = [np.mean(taken[labels[choosing] == label] != label) for label in range(4)]
            recalls[c] = round(100 - 100 * sum(wrong) / 4, 6)
        best = sorted(c for c, recall in recalls.items() if recall == max(recalls.values()))
        wanted = best[len(best) // 2]
        svm = fit_choosing_c(vectors, labels)
        assert svm.c == wanted
        chosen.add(svm.c)
        whole = LinearSVC(C=wanted, dual=False, tol=1e-8, max_iter=10_000).fit(vectors, labels)
        np.testing.assert_allclose(svm.scores(vectors), whole.decision_function(vectors), atol=1e-4)
    assert len(chosen) > 1, "a constant would have passed"


def test_each_of_two_classes_has_a_plane():
    labels = np.repeat([0, 1], 10)
    vectors = vectors_of(labels, noise=1.0)
    svm, solver = fit(vectors, labels, c=1.0), LinearSVC(C=1.0, dual=False).fit(vectors, labels)
    assert svm.scores(vectors).shape == (20, 2)
    assert np.array_equal(svm.predicted(vectors), solver.predict(vectors))


def test_an_svm_that_is_not_quite_solved_is_no_warning(monkeypatch):
    monkeypatch.setattr(linear_svm, "_MOST_ITERATIONS", 1)
    labels = np.repeat([0, 1, 2], 10)
    fit(vectors_of(labels, noise=1.0), labels, c=100.0)


def test_recall_is_computed_for_each_class():
    labels = np.array([5, 5, 5, 5, 2, 2, 7])
    right = np.array([1, 0, 0, 0, 1, 1, 0], bool)
    assert class_recalls(right, labels).tolist() == [1, 0.25, 0]


def outcomes(seed=0, images=40, splits=3):
    """Return which tested images are right, for three descriptors [3, splits, N]."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([0, 1], images // 2)
    tested = np.zeros((splits, images), bool)
    for its in tested:
        for label in (0, 1):
            its[rng.choice(np.flatnonzero(labels == label), 8, replace=False)] = True
    hard = rng.random(images)
    return np.stack([(hard < share) & tested for share in (0.9, 0.6, 0.3)]), tested, labels


def results(right, tested, labels):
    """Return the figures of a network, and of two baselines if there are more descriptors."""
    vectors = DescribedImages(ids=("a",), vectors=np.ones((1, 3), np.float32), unusable={})
    kinds = (("one", "network", "D"), ("two", "baseline", ""), ("three", "baseline", ""))[: len(right)]
    compared = [Compared(name=name, kind=kind, networks=nets, images=vectors) for name, kind, nets in kinds]
    figures = measured(list(right), tested, labels)
    svms = [SVMOutcome(answers=answers, c=(1.0,) * len(tested)) for answers in right]
    descriptors = descriptor_results(compared, svms, figures, ("a", "b"))
    return descriptors, descriptor_differences(descriptors, figures)


def test_figures_follow_from_which_images_are_right():
    right, tested, labels = outcomes()
    found, differences = results(right, tested, labels)
    for one, its in zip(found, right, strict=True):
        recalls = []
        for number in range(3):
            of_class = []
            for label in (0, 1):
                images = [i for i in range(40) if tested[number, i] and labels[i] == label]
                of_class.append(100 * sum(its[number, i] for i in images) / len(images))
            recalls.append(sum(of_class) / 2)
        mean = sum(recalls) / 3
        assert one.means == pytest.approx(recalls)
        assert one.mean == pytest.approx(mean)
        assert one.mean_sd == pytest.approx((sum((recall - mean) ** 2 for recall in recalls) / 2) ** 0.5)
        assert one.mean == pytest.approx(sum(one.per_class.values()) / 2)
        low, high = one.mean_ci95
        assert low < one.mean < high
    assert (found[0].paper.caltech_101, found[1].paper) == (91.8, None)
    assert [(pair.first, pair.second) for pair in differences] == [("one", "two"), ("one", "three")]
    for pair, other in zip(differences, found[1:], strict=True):
        assert pair.difference == pytest.approx(found[0].mean - other.mean)
        assert pair.differences == pytest.approx(np.subtract(found[0].means, other.means))
        assert pair.difference_ci95[0] < pair.difference < pair.difference_ci95[1]


def test_intervals_resample_images_with_all_their_answers():
    right, tested, labels = outcomes(seed=3)
    rng = np.random.default_rng(9)
    naive = []
    for _ in range(1500):
        values = np.zeros((3, 2))
        for label in (0, 1):
            images = np.flatnonzero((labels == label) & tested.any(axis=0))
            drawn = rng.choice(images, len(images))
            splits = [s for s in range(3) if tested[s, drawn].any()]
            values[:, label] = np.mean(
                [right[:, s, drawn].sum(axis=1) / tested[s, drawn].sum() for s in splits], axis=0
            )
        naive.append(100 * values.mean(axis=1))
    found = _resampled_recalls(right, tested, labels)
    for ours, theirs in zip(found, np.transpose(naive), strict=True):
        np.testing.assert_allclose(np.percentile(ours, [2.5, 50, 97.5]), np.percentile(theirs, [2.5, 50, 97.5]), atol=2)
    ours, theirs = found[0] - found[1], np.transpose(naive)[0] - np.transpose(naive)[1]
    np.testing.assert_allclose(np.percentile(ours, [2.5, 97.5]), np.percentile(theirs, [2.5, 97.5]), atol=2)


@pytest.mark.parametrize("images", [2, 3, 5, 40])
def test_resamples_vary_as_means_of_other_test_images_would(images):
    """An image has the sample variance p(1 - p) m/(m - 1), a mean of m images an m-th of it, two classes a half."""
    labels = np.repeat([0, 1], images)
    right = np.tile(np.arange(images) < images // 2 + 1, 2)[None, None] & (labels < 2)
    share = right[0, 0, :images].mean()
    drawn = _resampled_recalls(right, np.ones((1, 2 * images), bool), labels)
    assert drawn.mean() == pytest.approx(100 * share, abs=2)
    assert drawn.std() == pytest.approx(100 * (share * (1 - share) / (images - 1) / 2) ** 0.5, rel=0.06)


def test_a_descriptor_differs_from_itself_by_nothing():
    right, tested, labels = outcomes()
    _, (pair,) = results(right[[0, 0]], tested, labels)
    assert (pair.difference, pair.difference_ci95) == (0, (0, 0))


def test_one_image_per_class_in_one_split_has_neither_sd_nor_interval():
    right, tested = np.array([[[True, False, False, False]]]), np.array([[True, False, True, False]])
    (found,), differences = results(right, tested, np.array([0, 0, 1, 1]))
    assert (found.mean, found.mean_sd, found.mean_ci95, differences) == (50, None, None, ())


def test_stacked_vectors_have_length_one_and_all_numbers():
    labels = np.repeat([0, 1], 3)
    one, other = vectors_of(labels, noise=1.0), vectors_of(labels, noise=1.0, seed=1, numbers=5)
    found = stacked([one, other])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(found @ found.T, (one @ one.T + other @ other.T) / 2, rtol=1e-5)


def test_vectors_are_found_by_name():
    found = DescribedImages(ids=("a", "b", "c"), vectors=np.eye(3, dtype=np.float32), unusable={})
    assert found.vectors_of(["c", "a"]).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_pixels_are_the_squeezed_image(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "x").mkdir()
    image = Image.fromarray(rng.integers(0, 256, (50, 90, 3)).astype(np.uint8))
    image.save(tmp_path / "x" / "0.png")
    (found,) = pixel_features(open_for_testing(str(tmp_path), None).source("all"), Tolerance()).vectors
    small = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR), float).transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(found, small / np.linalg.norm(small), atol=2e-4)


def test_an_untrained_network_has_other_weights_and_the_same_mean(made):
    model = load_model(made.runs[0])
    model.net.mean_rgb.fill_(7)
    found, again, other = (untrained(model, seed=seed).net for seed in (0, 0, 1))
    assert found.mean_rgb.tolist() == [7, 7, 7]
    for name, value in found.named_parameters():
        assert torch.equal(value, again.get_parameter(name))
        if name.endswith("weight"):
            assert not torch.equal(value, model.net.get_parameter(name))
            assert not torch.equal(value, other.get_parameter(name))


def test_classes_that_differ_are_told_apart_and_a_seed_repeats_it(made):
    options = replace(FEW, baseline=True)
    found = transfer(made.runs, data=made.photos, options=options)
    assert (found.n, found.test, found.scales, found.mirror) == (27, (3, 3, 3), ((256,), (256,)), (True, True))
    one, other = map(str, made.runs)
    names = [descriptor.name for descriptor in found.descriptors]
    assert names == [one, other, "all stacked", f"{one}, untrained", f"{other}, untrained", "pixels"]
    assert [descriptor.numbers for descriptor in found.descriptors] == [205, 205, 410, 205, 205, 3072]
    assert found.descriptors[5].mean == 100
    assert len(found.differences) == 15 - 3
    again = transfer(made.runs, data=made.photos, options=options)
    assert replace(found, seconds=0) == replace(again, seconds=0)
    json.dumps(found.to_dict())


def test_shuffled_labels_give_chance(made):
    source = open_for_testing(str(made.photos), None).source("all")
    rng, recalls = np.random.default_rng(0), []
    for _ in range(8):
        labels = rng.permutation(source.labels)
        samples = tuple(
            Sample(source[place].data, int(label), f"{label}-{place}") for place, label in enumerate(labels)
        )
        shuffled = memory_source(classes=CLASSES, samples=samples)
        recalls.append(transfer(made.runs[:1], data=shuffled, options=FEW).descriptors[0].mean)
    # 8 x 18 images at a chance of a third: within three standard errors of independent images.
    assert abs(np.mean(recalls) - 100 / 3) < 12


def test_features_are_computed_once_and_again_for_other_contents(made, monkeypatch, tmp_path):
    photos = tmp_path / "photos"
    for name in CLASSES[:2]:
        (photos / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.asarray(Image.open(made.photos / name / f"{number}.png"))
            Image.fromarray(pixels).save(photos / name / f"{number}.bmp")
    computed, write = [], transfer_features.write_features
    monkeypatch.setattr(
        transfer_features, "write_features", lambda *given, **more: computed.append(given) or write(*given, **more)
    )
    first = transfer(made.runs[:1], data=photos, options=FEW)
    second = transfer(made.runs[:1], data=photos, options=replace(FEW, splits=1))
    assert (len(computed), first.descriptors[0].means[0]) == (1, second.descriptors[0].means[0])
    twin = Image.open(photos / CLASSES[0] / "0.bmp").transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    twin.save(photos / CLASSES[0] / "0.bmp")  # of the same size
    transfer(made.runs[:1], data=photos, options=FEW)
    transfer(made.runs[:1], data=photos, options=replace(FEW, scales=(256, 320), pool="stack"))
    assert len(computed) == 3
    for _, _, file in computed:
        file.write_bytes(file.read_bytes()[:-1])
    assert transfer(made.runs[:1], data=photos, options=FEW).n == 12
    assert len(computed) == 4


def test_vectors_are_the_features(made):
    options = TransferOptions(train=4, scales=(256, 320), pool="stack")
    kept = []
    original = transfer_features.network_features
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "verydeep.transfer_learning.compared_descriptors.network_features",
            lambda *given, **more: kept.append(original(*given, **more)) or kept[-1],
        )
        transfer(made.runs[:1], data=made.photos, options=options)
    descriptor = Descriptor(scales=(256, 320), pool="stack")
    rows = {one.id: one.values["relu7"] for one in features(made.runs[0], made.photos, descriptor=descriptor)}
    (found,) = kept
    for name, vector in zip(found.ids, found.vectors, strict=True):
        np.testing.assert_allclose(vector, rows[name] / np.linalg.norm(rows[name]), atol=1e-6)


def test_unusable_images_are_left_out_of_all_descriptors(made, tmp_path):
    photos = tmp_path / "photos"
    for name in CLASSES[:2]:
        (photos / name).mkdir(parents=True)
        for number in range(7):
            (photos / name / f"{number}.png").write_bytes((made.photos / name / f"{number}.png").read_bytes())
    (photos / CLASSES[0] / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="1 of 14 images cannot be used"):
        transfer(made.runs, data=photos, options=FEW)
    found = transfer(made.runs, data=photos, options=replace(FEW, baseline=True), tolerance=Tolerance(max_bad=10))
    assert (found.n, found.test) == (13, (2, 3))
    assert len(found.unusable) == 1


def test_a_saved_classifier_gives_the_scores_of_its_features(made, tmp_path):
    folder = tmp_path / "classifier"
    transfer(made.runs, data=made.photos, options=replace(FEW, scales=(256, 320)), out=folder)
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    images = sorted(made.photos.rglob("*.png"))
    found = list(classify(folder, images, top=3))
    assert [one.classes[0] for one in found] == [image.parent.name for image in images]
    loaded = load_classifier(folder)
    descriptor = Descriptor(scales=(256, 320), normalise=True)
    vectors = [
        np.stack([one.values["relu7"] for one in features(run, images, descriptor=descriptor)]) for run in made.runs
    ]
    scores = np.hstack(vectors) / 2**0.5 @ loaded.svm.weights.T + loaded.svm.biases
    for one, its in zip(found, scores, strict=True):
        assert one.scores == pytest.approx(sorted(its, reverse=True), abs=1e-4)
        assert [loaded.classes.index(name) for name in one.classes] == np.argsort(-its).tolist()


def test_damaged_and_foreign_folders_are_refused(made, tmp_path):
    folder = tmp_path / "classifier"
    transfer(made.runs[:1], data=made.photos, options=FEW, out=folder)
    transfer(made.runs[:1], data=made.photos, options=FEW, out=folder)  # replaced
    with pytest.raises(ValueError, match="contains something other than a classifier"):
        transfer(made.runs[:1], data=made.photos, options=FEW, out=made.photos)
    with pytest.raises(ValueError, match="holds no classifier"):
        classify(made.runs[0], made.photos)
    weights = bytearray((folder / "classifier.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "classifier.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="its SHA-256 differs"):
        load_classifier(folder)


def test_the_verbs_from_features_to_predictions(made, capsys, tmp_path):
    few = ["--train", 4, "--test", 3, "--splits", 2]
    saved = ["--out", tmp_path / "classifier", "--json", tmp_path / "found.json", "--report", tmp_path / "page"]
    assert run("transfer", *made.runs, "--data", made.photos, *few, "--baseline", *saved) == 0
    text = " ".join(capsys.readouterr().out.split())
    for wanted in ("3 classes, 4 training and 3 test images of each, 2 splits", "all stacked", "pixels", "91.8 ± 1.0"):
        assert wanted in text
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["descriptors"][2]["kind"] == "stacked"
    assert found == json.loads((tmp_path / "page" / "transfer.json").read_text())
    page = (tmp_path / "page" / "transfer.html").read_text()
    assert accessibility.problems(page) == []
    for one in found["descriptors"]:
        assert f"{one['mean']:.1f}</td>" in page
    for wanted in ("Chance is 33.3%", "Caltech-256", "image and bounding box", "All 27 images can be used"):
        assert wanted in page
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    images = [made.photos / "bee" / "0.png", broken]
    assert run("predict", tmp_path / "classifier", *images, "--json", "-") == 1
    predicted = json.loads(capsys.readouterr().out)["predictions"]
    assert predicted[0]["classes"][0] == "bee"
    assert predicted[1]["error"].startswith("undecodable")
    assert run("predict", tmp_path / "classifier", made.photos, "--top", 1) == 0
    assert "cow" in capsys.readouterr().out


def test_wrong_use_is_refused_in_a_line(made, capsys, tmp_path):
    on = ["transfer", made.runs[0], "--data", made.photos]
    assert "name one or more runs" in refusal(capsys, "transfer", "--data", made.photos)
    assert "each once" in refusal(capsys, *on, made.runs[0])
    assert "needs 31 images of each class or more" in refusal(capsys, *on)
    assert "train must be 2 or more, not 1" in refusal(capsys, *on, "--train", 1)
    assert "splits must be 1 or more" in refusal(capsys, *on, "--splits", 0)
    assert "fewer than two classes" in refusal(capsys, *on[:2], "--data", made.photos / "ant")
    assert "are distinct whole numbers" in refusal(capsys, *on, "--train", 4, "--scales", "100")
    assert "digits has splits: say which" in refusal(capsys, *on[:2], "--data", "digits")
    assert "is not a run" in refusal(capsys, "transfer", tmp_path, "--data", made.photos)
    assert "would replace an input" in refusal(capsys, *on, "--train", 4, "--out", made.photos)


def test_a_bootstrap_is_repeatable():
    right, tested, labels = outcomes()
    one, other = _resampled_recalls(right, tested, labels), _resampled_recalls(right, tested, labels)
    assert np.array_equal(one, other)
    assert one.shape == (3, transfer_measures.RESAMPLES)
