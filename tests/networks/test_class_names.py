"""The names of ILSVRC's classes, and where others come from."""

import pytest

from verydeep.ilsvrc_classes import class_numbers, ilsvrc_classes
from verydeep.networks.class_names import names_of_classes


def test_a_thousand_ids_in_order_with_names_that_differ():
    ids, names = list(ilsvrc_classes()), list(ilsvrc_classes().values())
    assert len(ids) == 1000
    assert ids == sorted(ids)
    assert all(len(wnid) == 9 and wnid[0] == "n" and wnid[1:].isdecimal() for wnid in ids)
    assert len({name.casefold() for name in names}) == 1000
    assert all(name == name.strip() and name for name in names)


@pytest.mark.parametrize(
    ("number", "wnid", "name"),
    [
        (0, "n01440764", "tench"),
        (134, "n02012849", "crane (bird)"),
        (264, "n02113186", "Cardigan Welsh corgi"),
        (281, "n02123045", "tabby"),
        (474, "n02963159", "cardigan"),
        (517, "n03126707", "crane (machine)"),
        (638, "n03710637", "maillot"),
        (639, "n03710721", "tank suit"),
        (999, "n15075141", "toilet tissue"),
    ],
)
def test_classes_stand_where_published_weights_have_them(number, wnid, name):
    assert list(ilsvrc_classes().items())[number] == (wnid, name)


def test_what_comes_with_the_weights_is_kept(tmp_path):
    assert names_of_classes(2, "words", ("n02012849", "n01440764")) == ("crane (bird)", "tench")
    assert names_of_classes(2, "wnids", ("n02012849", "n01440764")) == ("n02012849", "n01440764")
    assert names_of_classes(2, "words", ("cat", "dog")) == ("cat", "dog")
    assert names_of_classes(2, "wnids", ("tench", "n02012849")) == ("n01440764", "n02012849")
    others = tuple(f"bird {number}" for number in range(1000))  # as many as ILSVRC's, but not those
    assert names_of_classes(1000, "words", others) == others
    with pytest.raises(ValueError, match="its classes are not ILSVRC's, so they have no wnids"):
        names_of_classes(1000, "wnids", others)
    for told in (("cat", "cat"), ("cat",)):
        with pytest.raises(ValueError, match="1 distinct name came with 2 outputs: name a file"):
            names_of_classes(2, "words", told)
    (tmp_path / "names").write_text("\ufeffash\n\noak \n", encoding="utf-8")
    assert names_of_classes(2, str(tmp_path / "names"), ("cat",)) == ("ash", "oak")


def test_an_id_and_its_word_are_one_class():
    both = {"tench": 0, "n01440764": 0, "n02012849": 1, "crane (bird)": 1}
    assert class_numbers(("tench", "n02012849", "cat")) == {**both, "cat": 2}
    assert class_numbers(("tench", "n01440764")) == {"tench": 0, "n01440764": 1}  # two classes where both are names


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"a\nb\n", "2 names for 3 outputs"), (b"a\nb\na\n", "has 'a' twice"), (b"\xff\x00", "not valid UTF-8")],
)
def test_files_of_names_that_do_not_fit(tmp_path, content, message):
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        names_of_classes(3, str(tmp_path / "names"))
    assert not isinstance(caught.value, UnicodeError)
