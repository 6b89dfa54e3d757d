"""How much of the loss and of the gradient belongs to 81 of 480,081 pixels, before any training."""

from __future__ import annotations

import pytest
import torch

from mmloss_plugins.losses import SigmoidFocalLoss

POSITIVES, NEGATIVES = 81, 480_000
BCE = dict(alpha=None, gamma=0.0)
FOCAL = dict(alpha=0.25, gamma=2.0)


def shares(options, prior):
    """Return the positives' share of the loss and of the gradient's absolute value, in per cent."""
    target = torch.zeros(POSITIVES + NEGATIVES)
    target[:POSITIVES] = 1
    logits = torch.full_like(target, torch.tensor(prior).logit().item()).requires_grad_()
    loss = SigmoidFocalLoss(reduction='none', **options)(logits, target)
    loss.sum().backward()
    return tuple(
        (100 * values[:POSITIVES].sum() / values.sum()).item()
        for values in (loss.detach(), logits.grad.abs())
    )


@pytest.mark.parametrize(
    ('options', 'prior', 'of_loss', 'of_gradient'),
    [
        # p = .01, 5925.93 negatives per positive.
        # -ln .01 = 4.605 to 5925.93 * -ln .99 = 59.558; .99 to 5925.93 * .01 = 59.259
        (BCE, 0.01, 7.177, 1.643),
        # .25 * .99^2 * 4.605 = 1.12837 to 5925.93 * .75 * .01^2 * .01005 = .004467;
        # .25 * .99^2 * (.99 + 2 * .01 * 4.605) = .26514 to
        # 5925.93 * .75 * .01^2 * (.01 + 2 * .99 * .01005) = .013289
        (FOCAL, 0.01, 99.606, 95.227),
        # p = .5: every pixel alike, 1 of 5926.93.
        (BCE, 0.5, 0.016872, 0.016872),
        # alpha = .25 weighs positives down, gamma cancels: 1 to 3 * 5925.93.
        (FOCAL, 0.5, 0.0056247, 0.0056247),
    ],
    ids=['BCE', 'focal', 'BCE, no prior', 'focal, no prior'],
)
def test_share_of_the_positives(options, prior, of_loss, of_gradient):
    assert shares(options, prior) == pytest.approx((of_loss, of_gradient), rel=1e-3)


def test_the_prior_of_the_foreground_rate_balances_bce():
    # p = t / (p + n): the sums of (1 - p) over positives and of p over negatives are equal.
    rate = POSITIVES / (POSITIVES + NEGATIVES)
    assert shares(BCE, rate)[1] == pytest.approx(50, rel=1e-3)
