"""Evaluating a results JSON without a model."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.logging import MMLogger

from frdet.errors import ConfigError
from frdet.evaluation import CocoMetric
from frdet.evaluation.backends import KINDS
from frdet.evaluation.results import has_masks, load_results, read_results
from frdet.registry import DATASETS, METRICS, in_config_scope


@in_config_scope
def evaluate_results(cfg: Config, results: str | Path, *, kinds: Sequence[str] | None = None) -> dict[str, float]:
    """The 12 metric values of the detections in ``results``, of boxes or masks or both, with the tables in the log.

    Args:
        cfg: a config, whose test data are the truth, and whose ``CocoMetric`` is used.
        results: COCO's results JSON, also of other projects, or the ``detections.json`` of ``tools/detect.py``.
        kinds: ``bbox``, ``segm`` or both. None: those of the config.

    Raises:
        ConfigError: the config has no test data or no ``CocoMetric``.
        DataError: the data or the results cannot be read, or are about different images or classes.
    """
    evaluators = cfg.get('test_evaluator')
    evaluators = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
    ours = next((one for one in evaluators if one and one.get('type') == 'CocoMetric'), None)
    if ours is None or not (cfg.get('test_dataloader') or {}).get('dataset'):
        raise ConfigError(
            f'{cfg.filename or "the config"} needs test_dataloader.dataset, and CocoMetric in test_evaluator'
        )
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    metric: CocoMetric = METRICS.build({**ours, 'outfile': None, **({'metric': tuple(kinds)} if kinds else {})})
    metric.use_dataset(dataset)
    truth = metric.truth()
    records = [dataset.get_data_info(k) for k in range(len(dataset))]
    positions = [truth.position(record['img_id'], record['img_path']) for record in records]
    tested = [p for p in positions if p is not None]
    return _evaluate(metric, results, None, dataset.metainfo['classes'], tested)


def evaluate_results_of(
    ann_file: str | Path, results: str | Path, *, kinds: Sequence[str] | None = None
) -> dict[str, float]:
    """As ``evaluate_results``, of all images and classes in a COCO annotation file.

    Without ``kinds`` masks are evaluated, too, if ``results`` has any.
    """
    records = load_results(results)
    metric = CocoMetric(ann_file=str(ann_file), metric=kinds or (KINDS if has_masks(records) else 'bbox'))
    truth = metric.truth()
    for doubt in truth.doubts():
        MMLogger.get_current_instance().warning(doubt)
    classes = list(truth.sources[0].content.categories)
    return _evaluate(metric, results, records, classes, range(len(truth.images)))


def _evaluate(
    metric: CocoMetric,
    results: str | Path,
    records: Sequence[dict[str, Any]] | None,
    classes: Sequence[str],
    positions: Collection[int],
) -> dict[str, float]:
    metric.dataset_meta = {'classes': classes}
    found, said = read_results(
        results, metric.truth(), classes, positions, with_masks=metric.with_masks, records=records
    )
    if said:
        MMLogger.get_current_instance().warning(said)
    metric.results += found
    return metric.evaluate(len(found))
