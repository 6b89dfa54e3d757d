"""Edge aggregation against a walk down both slopes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from mmloss_plugins import functional as F
from tests.test_functional.extreme_oracles import generator, walk


def test_aggregation_by_hand():
    # Cell 1 has 0.1 on its left; cells 2 and 3 have the whole climb of their side, and each other:
    # 0.3 + 0.1 * (0.1 + 0.2) + 0.1 * (0.3 + 0.2) = 0.38. Cells 0 and 4 have nothing below them.
    line = torch.tensor([0.1, 0.2, 0.3, 0.3, 0.2], dtype=torch.float64)
    expected = torch.tensor([0.1, 0.21, 0.38, 0.38, 0.2], dtype=torch.float64)
    assert_close(F.edge_aggregate(line.view(1, 5), 'x'), expected.view(1, 5))
    assert_close(F.edge_aggregate(line.view(5, 1), 'y'), expected.view(5, 1))
    assert_close(F.edge_aggregate(line.view(1, 5), 'y'), line.view(1, 5))
    assert_close(F.edge_aggregate(line.view(1, 5), 'x', 0.0), line.view(1, 5))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9]), min_size=1, max_size=40),
    st.sampled_from([0.1, 0.7, 1.0]),
)
def test_aggregation_is_a_walk_down_both_slopes(values, weight):
    line = torch.tensor(values, dtype=torch.float64)
    expected = torch.tensor(walk(values, weight), dtype=torch.float64)
    assert_close(F.edge_aggregate(line.view(1, -1), 'x', weight)[0], expected)


def test_aggregation_of_a_batch_of_strided_maps():
    maps = (
        torch.rand(5, 2, 7, 3, generator=generator(1)).permute(1, 3, 0, 2).double()
    )  # (2, 3, 5, 7)
    rows = [[walk(row.tolist(), 0.1) for row in plane] for plane in maps.flatten(0, 1)]
    assert_close(F.edge_aggregate(maps, 'x').flatten(0, 1), torch.tensor(rows).double())
    assert_close(F.edge_aggregate(maps.mT, 'y').mT, F.edge_aggregate(maps, 'x'))


def test_long_monotone_edges_add_up_over_the_whole_line():
    # A constant line: each cell collects all others.
    assert_close(F.edge_aggregate(torch.full((2, 33), 0.5), 'x'), torch.full((2, 33), 0.5 + 1.6))


def test_equal_cells_stay_equal():
    """A flat top is one peak of several cells, not whichever rounding favours."""
    line = torch.tensor([[0.013, 0.3, 0.77, 0.77, 0.3, 0.013]])
    found = F.edge_aggregate(line, 'x')
    assert torch.equal(found, found.flip(-1))


def test_aggregation_computes_half_precision_in_float32():
    maps = torch.rand(2, 3, 4, 9, generator=generator(2)).half()
    found = F.edge_aggregate(maps, 'x')
    assert found.dtype == torch.float32
    assert_close(found, F.edge_aggregate(maps.float(), 'x'))


@pytest.mark.parametrize(
    ('axis', 'weight', 'text'),
    [('z', 0.1, "axis must be one of 'x', 'y'"), ('x', 1.5, 'weight must be within')],
)
def test_aggregation_refuses_bad_arguments(axis, weight, text):
    with pytest.raises(ValueError, match=text):
        F.edge_aggregate(torch.zeros(2, 3), axis, weight)
