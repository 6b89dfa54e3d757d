"""The case table. To add a loss, write a :class:`Case` in the module of its family.

The README of tests explains the fields. Every law then runs on every variant of the case.
"""

from __future__ import annotations

from tests.contract.case import Case
from tests.contract.cases import (
    balanced_bce,
    boxes,
    centernet,
    dice,
    dsnt,
    focal,
    heatmap,
    offset_heatmap,
    recognition,
    regression,
    simcc,
    wing,
)

CASES: dict[str, Case] = {
    **balanced_bce.CASES,
    **dice.CASES,
    **dsnt.CASES,
    **boxes.CASES,
    **centernet.CASES,
    **focal.CASES,
    **heatmap.CASES,
    **offset_heatmap.CASES,
    **recognition.CASES,
    **regression.CASES,
    **simcc.CASES,
    **wing.CASES,
}
