"""Modules that have moved. An import of the former name gives the module and a warning with the new name.

A former name works for one release.
"""

import importlib
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

#: Former name of a module or package -> new name. The modules of a package moved with it, unless listed before it.
MOVED: dict[str, str] = {
    'frdet.datasets.transforms.decoding': 'frdet.datasets.transforms.loading',
    'frdet.models.layers.conv_norm': 'frdet.models.layers.norm',
    'frdet.models.losses.box': 'frdet.models.losses.losses',
    'frdet.models.losses.classification': 'frdet.models.losses.losses',
    'frdet.models.roi_heads.bbox_head': 'frdet.models.roi_heads.standard_roi_head',
    'frdet.models.roi_heads.roi_extractor': 'frdet.models.roi_heads.standard_roi_head',
    'frdet.models.task_modules.anchor_generator': 'frdet.models.task_modules.anchors',
    'frdet.models.task_modules.assigners': 'frdet.models.task_modules.targets',
    'frdet.models.task_modules.box_coder': 'frdet.models.task_modules.anchors',
    'frdet.models.task_modules.samplers': 'frdet.models.task_modules.targets',
    'frdet.ops.boxes': 'frdet.ops.operators',
    'frdet.ops.derivatives': 'frdet.ops.registration',
    'frdet.ops.pooling': 'frdet.ops.operators',
    'frdet.apis.flops': 'frdet.insight.flops',
    'frdet.apis.inspection': 'frdet.insight.step',
    'frdet.engine.hooks.report': 'frdet.insight.hook',
    'frdet.evaluation.figures': 'frdet.evaluation.coco_metric',
    'frdet.visualization.browse': 'frdet.insight.browse',
    'frdet.visualization.layout': 'frdet.visualization.drawing',
    'frdet.visualization.page': 'frdet.insight.page',
    'frdet.visualization.plots': 'frdet.insight.plots',
    'frdet.visualization.report.figures': 'frdet.insight.report.plots',
    'frdet.visualization.report.labels': 'frdet.insight.report.training_page',
    'frdet.visualization.report.store': 'frdet.insight.store',
    'frdet.visualization.report': 'frdet.insight.report',
    'frdet.config.places': 'frdet.config.schema',
    'frdet.datasets.shapes.writing': 'frdet.datasets.shapes.dataset',
    'frdet.datasets.samplers': 'frdet.datasets.loaders',
    'frdet.datasets.coco_json': 'frdet.datasets.coco',
    'frdet.engine.checkpoint': 'frdet.checkpoints.runs',
    'frdet.engine.hooks.checkpoint': 'frdet.checkpoints.hooks',
    'frdet.engine.hooks.saving': 'frdet.checkpoints.hooks',
    'frdet.engine.saving': 'frdet.checkpoints.runs',
    'frdet.engine.schedule_fit': 'frdet.engine.schedules',
    'frdet.interop.checkpoints': 'frdet.checkpoints.converting',
    'frdet.interop.download': 'frdet.checkpoints.reading',
    'frdet.interop.files': 'frdet.checkpoints.reading',
    'frdet.interop.whole': 'frdet.checkpoints.detectors',
    'frdet.interop': 'frdet.checkpoints',
    'frdet.evaluation.analysis': 'frdet.insight.errors',
}


class MovedModules(MetaPathFinder, Loader):
    """Python asks this finder first. The path of a moved package would otherwise give its modules a second time."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec for a module or package in ``MOVED``, or inside one."""
        for former, now in MOVED.items():
            if f'{name}.'.startswith(f'{former}.'):
                return ModuleSpec(name, self, loader_state=now + name[len(former) :])
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Give the module its former name, too."""
        name, now = module.__name__, module.__spec__.loader_state  # type: ignore[union-attr]
        warnings.warn(f'{name} is {now} now; the former name ends with the next release', FutureWarning, 2)
        sys.modules[name] = importlib.import_module(now)


def moved_names(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """A ``__getattr__`` for ``package``. ``names``: each name that has moved -> its new module, or module:new name."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f'module {package!r} has no attribute {name!r}')
        module, _, now = names[name].partition(':')
        place = f'{module}.{now or name}'
        warnings.warn(f'{package}.{name} is {place} now; the former name ends with the next release', FutureWarning, 2)
        return getattr(importlib.import_module(module), now or name)

    return find


sys.meta_path.insert(0, MovedModules())
