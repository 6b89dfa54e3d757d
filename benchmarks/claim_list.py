"""What each paper claims, as a grid of mini configs: one entry per claim."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Claim:
    """A grid of configs x seeds that shows one sentence of a paper.

    Attributes:
        name: of the claim; the README's markers and the chart's file carry it.
        sentence: what is claimed, and what would refute it.
        configs: label in table and chart -> config file below the repository.
        metrics: column title -> key in MMEngine's scalars, in [0, 1].
        decisive: the two labels that ``--quick`` trains: ours, then the baseline.
        readme: the file that shows table and chart between the markers of the claim's name.
        seeds: number of seeds of the full grid.
        data: environment variable that names a data set which is not generated.
    """

    name: str
    sentence: str
    configs: dict[str, str]
    metrics: dict[str, str]
    decisive: tuple[str, str]
    readme: str
    seeds: int = 3
    data: str | None = None

    @property
    def chart(self) -> Path:
        return (ROOT / self.readme).parent / f'claim-{self.name}.png'


_SIMCC = 'configs/pose/simcc'

_CLAIMS = (
    Claim(
        name='simcc',
        sentence=(
            'At a 64x64 input, on the same features, SimCC locates joints far better than heatmaps.'
        ),
        configs={
            'SimCC': f'{_SIMCC}/simcc_mini_tiny-res_figures-64x64.py',
            'heatmap 8x8': f'{_SIMCC}/td-hm_mini_tiny-res_figures-64x64.py',
            'heatmap 16x16 (+ deconv)': f'{_SIMCC}/td-hm_mini_tiny-res-deconv_figures-64x64.py',
        },
        metrics={'PCK@.05': 'pck@.05/PCK', 'PCK@.02': 'pck@.02/PCK', 'AP': 'coco/AP'},
        decisive=('SimCC', 'heatmap 8x8'),
        readme=f'{_SIMCC}/README.md',
    ),
    Claim(
        name='simcc-mouse',
        sentence='The same on real frames (72 of them to train on).',
        configs={
            'SimCC': f'{_SIMCC}/simcc_mini_tiny-res_mirror-mouse-64x64.py',
            'heatmap 8x8': f'{_SIMCC}/td-hm_mini_tiny-res_mirror-mouse-64x64.py',
        },
        metrics={'PCK@.05': 'pck@.05/PCK', 'PCK@.02': 'pck@.02/PCK'},
        decisive=('SimCC', 'heatmap 8x8'),
        readme=f'{_SIMCC}/README.md',
        seeds=1,
        data='MIRROR_MOUSE',
    ),
)
CLAIMS = {claim.name: claim for claim in _CLAIMS}
