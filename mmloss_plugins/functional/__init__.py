"""The equations, in torch alone: no registry, no loss weight, no host."""

from mmloss_plugins.functional.debug import value_checks, value_checks_enabled
from mmloss_plugins.functional.reduction import expand_weight, reduce_loss
from mmloss_plugins.functional.simcc import kl_discret

__all__ = ['expand_weight', 'kl_discret', 'reduce_loss', 'value_checks', 'value_checks_enabled']
