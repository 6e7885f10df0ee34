"""Running exported files; an ONNX file as a detector."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from frdet.config.safe import refuse_imports
from frdet.errors import CheckpointError, ExportError
from frdet.structures import DetDataSample, check_scale, paste_masks, to_original

INPUTS = ('images', 'image_sizes')
#: Key of the JSON in the metadata of an ONNX file that ``export_detector`` writes and ``OnnxDetector`` reads.
KEY = 'frdet'
MISSING = 'An ONNX file needs {}, which cannot be imported: pip install "frdet[export]"'

Run = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


class ProgramRun:
    """A .pt2 file as a function.

    Attributes:
        least: the smallest side of an image that the file takes, in pixels. ``torch.export`` treats a map with one cell
            apart, so it depends on the stride of the coarsest map.
    """

    def __init__(self, path: str | Path):
        program = torch.export.load(path)
        self._path, self._run = path, program.module()
        shape = next(node.meta['val'].shape for node in program.graph.nodes if node.name == INPUTS[0])
        self.least = max(int(program.range_constraints[side.node.expr].lower) for side in shape[2:])

    def __call__(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """As ``ExportedDetector.forward``. Raises ExportError if the images are too small."""
        height, width = images.shape[2:]
        if min(height, width) < self.least:
            raise ExportError(
                f'{self._path} takes images whose sides have {self.least} pixels at least, and these are {height} x '
                f'{width}: pad or enlarge them, or export an .onnx file'
            )
        return self._run(images, image_sizes)


class OnnxDetector:
    """An ONNX file of ``export_detector`` in the place of a model of ``init_detector``. It runs on the CPU.

    Attributes:
        cfg: ``test_dataloader.dataset.pipeline`` prepares images as for the model.
        dataset_meta: ``classes``, the names of the labels, and ``category_ids``.

    Raises:
        CheckpointError: there is no file, or frdet did not write it.
        ExportError: ONNX Runtime is missing, or refuses the file.
        ConfigError: the pipeline has a transform that is not registered.
    """

    def __init__(self, path: str | Path):
        if not Path(path).is_file():
            raise CheckpointError(f'{path}: no such file. Write one with tools/export_onnx.py')
        session = onnx_session(path)
        written = session.get_modelmeta().custom_metadata_map.get(KEY)
        facts = json.loads(written) if written else {}
        if not facts.get('pipeline'):
            raise CheckpointError(
                f'{path} does not say how images are prepared for it: expected a file of tools/export_onnx.py, which '
                f'describes it in the metadata {KEY!r}; export it again'
            )
        self.cfg = Config({'test_dataloader': {'dataset': {'pipeline': facts['pipeline']}}})
        refuse_imports(self.cfg)
        self.dataset_meta = {key: tuple(facts[key]) for key in ('classes', 'category_ids')}
        self._paste = partial(paste_masks, **(facts.get('masks') or {}))
        self._run = _as_function(session)

    def test_step(self, data: dict[str, Any]) -> list[DetDataSample]:
        """As ``Detector.test_step``: ``inputs``, images (3, H_i, W_i), and ``data_samples``, which get detections."""
        samples: list[DetDataSample] = data['data_samples']
        for sample in samples:
            check_scale(sample)
        outputs = run_batch(self._run, [image.float() for image in data['inputs']])
        for sample, boxes, scores, labels, *masks in zip(samples, *outputs, strict=True):
            there = labels >= 0
            found = InstanceData(bboxes=boxes[there], scores=scores[there], labels=labels[there])
            if masks:
                found.masks = masks[0][there]
            flip = bool(sample.get('flip', False))
            sample.pred_instances = to_original(found, sample.img_shape, sample.ori_shape, flip=flip, paste=self._paste)
        return samples


def load_exported(path: str | Path) -> Run:
    """An exported file as a function with the inputs and outputs of ``ExportedDetector.forward``.

    Raises:
        ExportError: ONNX Runtime is missing, or refuses the file.
    """
    return ProgramRun(path) if Path(path).suffix == '.pt2' else _as_function(onnx_session(path))


def onnx_session(path: str | Path) -> Any:
    """An ``InferenceSession`` on the CPU. Raises ExportError."""
    try:
        import onnxruntime
    except ImportError:
        raise ExportError(MISSING.format('onnxruntime')) from None
    try:
        return onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
    except Exception as error:  # its errors have no common class
        raise ExportError(f'ONNX Runtime refuses {path}: {error}') from error


def _as_function(session: Any) -> Run:
    return lambda *inputs: tuple(
        torch.from_numpy(output)
        for output in session.run(None, {name: x.numpy() for name, x in zip(INPUTS, inputs, strict=True)})
    )


@torch.no_grad()
def run_batch(run: Run, images: Sequence[Tensor], padding: float = 0.0) -> tuple[Tensor, ...]:
    """The outputs of ``ExportedDetector.forward`` for N images (3, H_i, W_i) float32.

    ``padding`` is the value beside smaller images. It does not change the result.
    """
    sizes = torch.tensor([image.shape[1:] for image in images])
    height, width = sizes.amax(dim=0).tolist()
    inputs = [F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1]), value=padding) for x in images]
    return run(torch.stack(inputs), sizes)
