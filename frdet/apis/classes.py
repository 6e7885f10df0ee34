"""``num_classes=None``: as many classes as the data set has."""

import copy
from collections.abc import Callable, Sequence

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import init_default_scope

from frdet.errors import ConfigError
from frdet.registry import DATASETS, SCOPE

OPTION = 'model.roi_head.bbox_head.num_classes'


def settle_num_classes(cfg: Config, classes: Callable[[], Sequence[str]]) -> None:
    """Replace None at ``model.roi_head.bbox_head.num_classes`` by the number of ``classes()``; leave a number alone.

    Raises:
        ConfigError: ``classes`` gives none.
    """
    roi_head = (cfg.get('model') or {}).get('roi_head') or {}
    head = roi_head.get('bbox_head') or {}
    if head.get('num_classes', 0) is None:
        names = classes()
        if not names:
            raise ConfigError(f'{OPTION} is None, and no class is known: set it to a number')
        head['num_classes'] = len(names)
        print_log(f'{OPTION} is None: {head["num_classes"]}, as the data set has', logger='current')


def classes_of_split(cfg: Config, split: str) -> Sequence[str]:
    """Class names of the data set of ``train``, ``val`` or ``test``, which is read for them.

    Raises:
        DataError: the data set is missing or wrong.
    """
    init_default_scope(cfg.get('default_scope') or SCOPE)
    dataset = DATASETS.build(copy.deepcopy(cfg[f'{split}_dataloader'].dataset))
    return (getattr(dataset, 'metainfo', None) or {}).get('classes') or ()
