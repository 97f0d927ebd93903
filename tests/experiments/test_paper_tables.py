"""Every number of the paper that the report shows, typed a second time: S/Q top-1/top-5, validation set, percent."""

import pytest

from verydeep.experiments.paper import (
    B_5X5_EXTRA_TOP1,
    DEEPER,
    FUSED,
    NETWORKS,
    TABLE_3,
    TABLE_4,
    reported,
)
from verydeep.networks.configurations import CONFIGURATIONS

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


def as_printed(row):
    train = f"[{row.train.replace(':', ';')}]" if ":" in row.train else row.train
    return [row.network, train, ",".join(map(str, row.test)), f"{row.top1:.1f}", f"{row.top5:.1f}"]


@pytest.mark.parametrize(("table", "printed"), [(TABLE_3, PRINTED_TABLE_3), (TABLE_4, PRINTED_TABLE_4)])
def test_tables_are_as_printed(table, printed):
    assert [as_printed(row) for row in table] == [line.split() for line in printed.strip().splitlines()]


def test_errors_are_given_to_one_decimal():
    for row in (*TABLE_3, *TABLE_4, FUSED):
        assert (row.top1, row.top5) == (round(row.top1, 1), round(row.top5, 1))


def test_fusion_of_d_and_e_is_as_in_table_6():
    assert as_printed(FUSED) == ["D + E", "[256;512]", "256,384,512", "24.0", "7.1"]


def test_b_with_5x5_layers_is_seven_points_worse():
    assert B_5X5_EXTRA_TOP1 == 7.0


def test_the_networks_are_those_of_the_paper():
    assert NETWORKS == ("A", "A-LRN", "B", "B-5x5", "C", "D", "E")
    assert set(NETWORKS) == set(CONFIGURATIONS)
    assert DEEPER == ("B", "C", "D", "E")


@pytest.mark.parametrize(
    ("table", "network", "train", "errors"),
    [
        (TABLE_3, "D", "256", (27.0, 8.8)),
        (TABLE_3, "D", "256:512", (25.6, 8.1)),
        (TABLE_4, "D", "256", (26.6, 8.6)),
        (TABLE_4, "E", "384", (26.7, 8.6)),
    ],
)
def test_a_line_is_found_by_network_and_scale(table, network, train, errors):
    row = reported(table, network, train)
    assert (row.network, row.train, row.top1, row.top5) == (network, train, *errors)


@pytest.mark.parametrize(
    ("table", "network", "train"),
    [(TABLE_3, "B-5x5", "256"), (TABLE_4, "A", "256"), (TABLE_3, "A", "384"), (TABLE_3, "D", "300")],
)
def test_what_the_paper_does_not_report_is_not_made_up(table, network, train):
    assert reported(table, network, train) is None
