"""Stops a run whose model counts other classes than the set that it is trained on."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmloss_plugins.errors import message
from mmloss_plugins.registry import HOOKS


@HOOKS.register_module()
class TrainClassesHook(Hook):
    """Check that every ``num_classes`` of the model is the number of classes to train on.

    One class too few would end as an index out of range, on a GPU as a failed assertion without a
    name. Data sets without ``classes`` in their ``metainfo`` are not checked. MMDetection's
    ``NumClassCheckHook`` looks at the validation set, too, where embeddings have other classes.

    Raises:
        ValueError: before the first step, if they differ.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the model with the data set."""
        data = runner.train_dataloader.dataset
        classes = getattr(data, 'metainfo', {}).get('classes')
        if classes is None:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, module in model.named_modules():
            found = getattr(module, 'num_classes', None)
            if isinstance(found, int) and found != len(classes):
                rule = f'be the {len(classes)} classes of {type(data).__name__}'
                step = f'Set num_classes={len(classes)} there'
                what = f'{type(module).__name__} ({name})'
                raise ValueError(message(what, 'num_classes', rule, found, step))
