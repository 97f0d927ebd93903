"""Every number of the paper that is in the project, typed a second time as printed: percent, - where not reported."""

import pytest

from verydeep.networks.architecture import CONFIGURATIONS
from verydeep.reproduction.paper import (
    B_5X5_EXTRA_TOP1,
    CLARIFAI_WITH_OUTSIDE_DATA_TOP5_TEST,
    D_AND_E,
    NETWORKS,
    SUBMITTED,
    TABLE_3,
    TABLE_4,
    TABLE_5,
    TABLE_6,
    TABLE_7,
    reported,
)
from verydeep.reproduction.trainings import SEVEN, TRAININGS
from verydeep.transfer_learning.paper import TABLE_11, TABLE_12, reported_transfer

PRINTED_TABLE_3 = """
A      256        256  29.6 10.4
A-LRN  256        256  29.7 10.5
B      256        256  28.7  9.9
C      256        256  28.1  9.4
C      384        384  28.1  9.3
C      [256;512]  384  27.3  8.8
D      256        256  27.0  8.8
D      384        384  26.8  8.7
D      [256;512]  384  25.6  8.1
E      256        256  27.3  9.0
E      384        384  26.9  8.7
E      [256;512]  384  25.5  8.0
"""

PRINTED_TABLE_4 = """
B  256        224,256,288  28.2  9.6
C  256        224,256,288  27.7  9.2
C  384        352,384,416  27.8  9.2
C  [256;512]  256,384,512  26.3  8.2
D  256        224,256,288  26.6  8.6
D  384        352,384,416  26.5  8.6
D  [256;512]  256,384,512  24.8  7.5
E  256        224,256,288  26.9  8.7
E  384        352,384,416  26.7  8.6
E  [256;512]  256,384,512  24.8  7.5
"""

PRINTED_TABLE_5 = """
D  dense  24.8  7.5
D  crops  24.6  7.5
D  both   24.4  7.2
E  dense  24.8  7.5
E  crops  24.6  7.4
E  both   24.4  7.1
"""

PRINTED_TABLE_6 = """
seven  dense  24.7  7.5  7.3
D+E    dense  24.0  7.1  7.0
D+E    crops  23.9  7.2  -
D+E    both   23.7  6.8  6.8
"""

PRINTED_TABLE_7 = """
VGG              2        23.7   6.8   6.8
VGG              1        24.4   7.1   7.0
VGG              7        24.7   7.5   7.3
GoogLeNet        1        -      7.9   7.9
GoogLeNet        7        -      6.7   6.7
MSRA             11       -      -     8.1
MSRA             1        27.9   9.1   9.1
Clarifai         several  -      -    11.7
Clarifai         1        -      -    12.5
Zeiler&Fergus    6        36.0  14.7  14.8
Zeiler&Fergus    1        37.5  16.0  16.1
OverFeat         7        34.0  13.2  13.6
OverFeat         1        35.7  14.2  -
Krizhevskyetal.  5        38.1  16.4  16.4
Krizhevskyetal.  1        40.7  18.2  -
"""

PRINTED_TABLE_11 = """
D    89.3  89.0  91.8±1.0  85.0±0.2
E    89.3  89.0  92.3±0.5  85.1±0.3
D+E  89.7  89.3  92.7±0.5  86.2±0.3
"""


def lines(printed):
    return [line.split() for line in printed.strip().splitlines()]


def errors(*values):
    return ["-" if value is None else f"{value:.1f}" for value in values]


def as_printed(row):
    train = f"[{row.train.replace(':', ';')}]" if ":" in row.train else row.train
    return [row.network, train, ",".join(map(str, row.test)), *errors(row.top1, row.top5)]


@pytest.mark.parametrize(("table", "printed"), [(TABLE_3, PRINTED_TABLE_3), (TABLE_4, PRINTED_TABLE_4)])
def test_tables_of_scales_are_as_printed(table, printed):
    assert [as_printed(row) for row in table] == lines(printed)
    assert {(row.method, row.top5_test) for row in table} == {("dense", None)}


def test_table_5_is_as_printed():
    assert [[row.network, row.method, *errors(row.top1, row.top5)] for row in TABLE_5] == lines(PRINTED_TABLE_5)
    assert {(row.train, row.test) for row in TABLE_5} == {("256:512", (256, 384, 512))}


def test_table_6_is_as_printed():
    found = [[row.network.replace(" ", ""), row.method, *errors(row.top1, row.top5, row.top5_test)] for row in TABLE_6]
    assert found == lines(PRINTED_TABLE_6)
    assert {(row.train, row.test) for row in TABLE_6[1:]} == {("256:512", (256, 384, 512))}


def test_table_7_is_as_printed():
    found = [[row.who.replace(" ", ""), row.networks, *errors(row.top1, row.top5, row.top5_test)] for row in TABLE_7]
    assert found == lines(PRINTED_TABLE_7)
    assert CLARIFAI_WITH_OUTSIDE_DATA_TOP5_TEST == 11.2


def test_tables_11_and_12_are_as_printed():
    found = [
        [
            row.networks.replace(" ", ""),
            *errors(row.voc_2007, row.voc_2012),
            f"{row.caltech_101}±{row.caltech_101_sd}",
            f"{row.caltech_256}±{row.caltech_256_sd}",
        ]
        for row in TABLE_11
    ]
    assert found == lines(PRINTED_TABLE_11)
    assert dict(TABLE_12) == {"image only": 79.2, "image and bounding box": 84.0}
    assert reported_transfer(D_AND_E) is TABLE_11[2]
    assert reported_transfer("A") is None


def test_errors_are_given_to_one_decimal():
    for row in (*TABLE_3, *TABLE_4, *TABLE_5, *TABLE_6, *TABLE_7):
        for error in (row.top1, row.top5, row.top5_test):
            assert error is None or error == round(error, 1)


def test_what_stands_in_two_tables_is_the_same():
    for network in "DE":
        several, dense = reported(TABLE_4, network, "256:512"), reported(TABLE_5, network)
        assert (several.top1, several.top5) == (dense.top1, dense.top5)
    both = reported(TABLE_6, D_AND_E, method="both")
    assert (both.top1, both.top5, both.top5_test) == (TABLE_7[0].top1, TABLE_7[0].top5, TABLE_7[0].top5_test)
    assert (SUBMITTED.top1, SUBMITTED.top5) == (TABLE_7[2].top1, TABLE_7[2].top5)


def test_the_seven_were_tested_at_the_scales_of_each():
    trained = {one.name: one.scale for one in TRAININGS}
    scales = {row.test for row in TABLE_4 for name in SEVEN if row.train == trained[name]}
    assert SUBMITTED.test == tuple(sorted({q for several in scales for q in several}))


def test_b_with_5x5_layers_is_seven_points_worse():
    assert B_5X5_EXTRA_TOP1 == 7.0


def test_the_networks_are_those_of_the_paper():
    assert NETWORKS == ("A", "A-LRN", "B", "B-5x5", "C", "D", "E")
    assert set(NETWORKS) == set(CONFIGURATIONS)
    assert {one.network for one in TRAININGS if one.init} == set("BCDE")


@pytest.mark.parametrize(
    ("table", "network", "train", "method", "found"),
    [
        (TABLE_3, "D", "256", "dense", (27.0, 8.8)),
        (TABLE_3, "D", "256:512", "dense", (25.6, 8.1)),
        (TABLE_4, "D", "256", "dense", (26.6, 8.6)),
        (TABLE_4, "E", "384", "dense", (26.7, 8.6)),
        (TABLE_5, "E", None, "crops", (24.6, 7.4)),
        (TABLE_6, D_AND_E, None, "crops", (23.9, 7.2)),
        (TABLE_6, "seven", None, "dense", (24.7, 7.5)),
    ],
)
def test_a_line_is_found_by_network_scale_and_method(table, network, train, method, found):
    row = reported(table, network, train, method=method)
    assert (row.network, row.method, row.top1, row.top5) == (network, method, *found)
    assert train in (None, row.train)


@pytest.mark.parametrize(
    ("table", "network", "train", "method"),
    [
        (TABLE_3, "B-5x5", "256", "dense"),
        (TABLE_4, "A", "256", "dense"),
        (TABLE_3, "A", "384", "dense"),
        (TABLE_3, "D", "300", "dense"),
        (TABLE_3, "D", "256", "crops"),
        (TABLE_5, "C", None, "dense"),
        (TABLE_6, "seven", None, "both"),
    ],
)
def test_what_the_paper_does_not_report_is_not_made_up(table, network, train, method):
    assert reported(table, network, train, method=method) is None
