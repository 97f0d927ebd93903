"""Results as notebooks show them: HTML that is whole, with the figures of the results, and names as data."""

from xml.etree import ElementTree

import made_up_evaluations
import numpy as np

from verydeep import Prediction, describe


def cells(html):
    """Return the caption of a table and its rows."""
    table = ElementTree.fromstring(html)
    return table.find("caption").text, [[cell.text for cell in row] for row in table.findall("tr")]


def test_a_prediction_is_a_table_of_classes():
    name = "<script>alert(1)</script>.png"
    found = Prediction(image=name, classes=("<b>", "a\u202eb"), probabilities=(0.912, 0.05))
    assert cells(found._repr_html_()) == (name, [["class", "probability"], ["<b>", "91.2%"], ["a\\u202eb", "5.0%"]])
    refused = Prediction(image=name, classes=(), probabilities=(), error="truncated")
    assert cells(refused._repr_html_()) == (f"{name}: truncated", [["class", "probability"]])


def test_an_evaluation_is_a_table_of_errors():
    posteriors = [np.eye(6)[[0, 1, 2, 3, 0]], np.eye(6)[[0, 1, 2, 0, 0]]]
    found = made_up_evaluations.evaluation(["runs/<a>", "runs/b"], posteriors, [0, 1, 2, 3, 4], "abcdef")
    caption, rows = cells(found._repr_html_())
    assert caption == "photos, test: 5 images, dense"
    assert [row[:2] for row in rows] == [
        ["run", "top-1 error, %"],
        ["runs/<a>", "20.00"],
        ["runs/b", "40.00"],
        ["fused", "40.00"],  # equal posteriors are not a right answer
    ]
    one = made_up_evaluations.evaluation(["run"], posteriors[:1], [0, 1, 2, 3, 4], "abcdef")
    assert len(cells(one._repr_html_())[1]) == 2


def test_a_description_is_a_drawing():
    network = describe("A")
    assert network._repr_svg_() == network.to_svg()
