"""Writing a detector as an ONNX file or as a program of ``torch.export``.

Shapes: N images, H x W pixels, D detections an image.
"""

import copy
import dataclasses
import io
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from frdet import __version__
from frdet.apis.classes import category_ids
from frdet.apis.exported import INPUTS, KEY, MISSING
from frdet.apis.inference import pipeline_of, steps_of
from frdet.errors import ExportError, UserError
from frdet.files import write_file
from frdet.models.detectors import Detector, mask_head_of
from frdet.models.preprocessor import DetPreprocessor
from frdet.ops import loading

SUFFIXES = ('.onnx', '.pt2')
OUTPUTS = ('boxes', 'scores', 'labels', 'masks')
#: Dimensions of the inputs that may have any size.
AXES = {'images': {0: 'batch', 2: 'height', 3: 'width'}, 'image_sizes': {0: 'batch'}}
#: Attributes of the head that gives the detections, whose values are part of the graph.
THRESHOLDS = ('score_thr', 'nms_iou_thr', 'max_per_image')


class ExportedDetector(nn.Module):
    """A ``Detector`` with its preprocessing, whose inputs and outputs are tensors; see ``forward``."""

    def __init__(self, detector: Any):
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, ...]:
        """Boxes (N, D, 4), scores (N, D) and labels (N, D) in a batch, as ``Detector.predict`` finds them.

        A detector with masks also gives masks (N, D, M, M): probabilities on a grid over each box.

        Args:
            images: (N, 3, H, W) float32, BGR from 0 to 255, resized as in testing. Images of several sizes lie at the
                top left; the padding is not used.
            image_sizes: (N, 2) int64, (height, width) of each image.
        """
        features = self.detector.extract_features(self._normalised(images, image_sizes))
        return tuple(x for x in self.detector.detect(features, image_sizes.float()) if x is not None)

    def _normalised(self, images: Tensor, image_sizes: Tensor) -> Tensor:
        """The batch after ``DetPreprocessor``."""
        rule = self.detector.data_preprocessor
        if rule.bgr_to_rgb:
            images = images.flip(1)
        height, width = images.shape[2:]
        y = torch.arange(height, device=images.device) < image_sizes[:, :1]
        x = torch.arange(width, device=images.device) < image_sizes[:, 1:]
        inputs = ((images - rule.mean) / rule.std).masked_fill(~(y[:, None, :, None] & x[:, None, None, :]), 0)
        d = rule.pad_size_divisor
        inputs = F.pad(inputs, (0, (width + d - 1) // d * d - width, 0, (height + d - 1) // d * d - height))
        return inputs.to(memory_format=torch.channels_last)


def export_detector(model: nn.Module, path: str | Path, *, optimize: bool = True) -> None:
    """Write a detector for use without frdet: preprocessing, network and selection in one graph, in float32.

    Args:
        model: a ``Detector``, for example of ``init_detector``. It is not changed.
        path: ends in .onnx (opset 18, standard operators, weights inside) or .pt2 (``torch.export`` with frdet's
            operators, which ``import frdet.ops`` registers). An existing file is replaced.
        optimize: simplify the graph of an ONNX file. Without it, writing takes half as long, and the file is a little
            slower.

    Inputs and outputs are those of ``ExportedDetector.forward``, with any batch, height and width (.pt2: above 64
    pixels). The metadata of an ONNX file have ``facts_of`` the model as JSON, ``frdet``, and its ``classes`` again.

    Raises:
        ExportError: the model's parts cannot be exported, a package is missing, or the file cannot be written.
    """
    path = check_target(path)
    program = export_program(model)
    content = _as_onnx(program, _metadata(model), optimize=optimize) if path.suffix == '.onnx' else _as_pt2(program)
    try:
        write_file(path, content)
    except OSError as error:
        raise ExportError(f'{path} cannot be written ({error.strerror}): choose another file') from None


def check_target(path: str | Path) -> Path:
    """``path`` as a Path; ExportError if its ending is wrong, or its folder or a needed package is missing."""
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise ExportError(f'{path} ends in {path.suffix or "nothing"}: expected {" or ".join(SUFFIXES)}')
    if not path.parent.is_dir():
        raise ExportError(f'{path.parent} is no folder: make it, or choose another file')
    if path.suffix == '.onnx':
        for name in ('onnx', 'onnxscript'):
            try:
                __import__(name)
            except ImportError:
                raise ExportError(MISSING.format(name)) from None
    return path


def export_program(model: nn.Module) -> ExportedProgram:
    """``ExportedDetector`` of a model as a program of ``torch.export``, on the CPU in float32. Raises ExportError."""
    preprocessor = getattr(model, 'data_preprocessor', None)
    for part, method, expected in ((model, 'predict', Detector), (preprocessor, 'forward', DetPreprocessor)):
        if getattr(type(part), method, None) is not getattr(expected, method):
            raise ExportError(
                f'{type(part).__name__}.{method} is not that of {expected.__name__}, which an export computes: '
                f'do not override {method}'
            )
    if 'cpu' not in loading.status().loaded:
        raise ExportError(
            f"Exporting needs frdet's operators, {loading.status().missing['cpu']}: `python tools/doctor.py` says more"
        )
    detector = ExportedDetector(plain_copy(model))
    # Sizes are free, but torch.export treats 0 and 1 apart: p6 of more than 64 pixels has two cells.
    images = torch.zeros(2, 3, 200, 168)
    sizes = torch.tensor([[200, 168], [100, 150]])
    free = tuple(dict.fromkeys(AXES[name], Dim.DYNAMIC) for name in INPUTS)
    try:
        with torch.no_grad():
            return torch.export.export(detector, (images, sizes), dynamic_shapes=free, strict=False)
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().partition('\n')[0]
        raise ExportError(
            f'torch.export cannot follow this model ({type(error).__name__}: {reason}). Its parts may use only tensor '
            'operations whose number does not depend on values; FRDET_TRACEBACK=1 shows where it fails'
        ) from error


def facts_of(model: Any) -> dict[str, Any]:
    """What a program must know to use an exported file, and what the graph computes: plain data for JSON.

    ``pipeline`` has the transforms of test images with all their arguments, among them the resizing. It is None, as may
    be the category ids, if the model has no ``cfg``. ``masks`` says how masks become pixels; None without masks.

    Raises:
        ConfigError: there is no pipeline of test images, or joined test data have two category ids for a class.
    """
    meta, cfg = getattr(model, 'dataset_meta', {}), getattr(model, 'cfg', None)
    classes, rule = list(meta.get('classes', ())), model.data_preprocessor
    last = next((part for part in model.modules() if hasattr(part, 'score_thr')), None)
    masks = mask_head_of(model)
    return {
        'version': __version__,
        'classes': classes,
        'category_ids': meta.get('category_ids') or (cfg and category_ids(cfg, classes)),
        'pipeline': cfg and [_whole(*pair) for pair in zip(steps_of(cfg), pipeline_of(cfg).transforms, strict=True)],
        'input': {'channel_order': 'bgr', 'value_range': [0, 255], 'layout': 'NCHW', 'padding': 'right and bottom'},
        'masks': masks and {'threshold': getattr(masks, 'mask_thr_binary', 0.5), 'rule': getattr(masks, 'rule', None)},
        'graph': {
            'bgr_to_rgb': rule.bgr_to_rgb,
            'mean': rule.mean.flatten().tolist(),
            'std': rule.std.flatten().tolist(),
            'pad_size_divisor': rule.pad_size_divisor,
            **{name: getattr(last, name, None) for name in THRESHOLDS},
        },
    }


def _whole(step: Any, built: Any) -> Any:
    """A transform of a config with its default arguments; one that is built already stays."""
    if not isinstance(step, dict):
        return step
    fields = dataclasses.fields(built) if dataclasses.is_dataclass(built) else ()
    return {'type': step['type'], **{f.name: getattr(built, f.name) for f in fields}, **step}


def plain_copy(model: nn.Module) -> Any:
    """The model in evaluation mode, float32, on the CPU, not compiled, and without autocast."""
    plain: Any = copy.deepcopy(model).float().cpu().eval()
    plain.compile_features = plain.predicts_in_bfloat16 = False
    return plain


def _metadata(model: nn.Module) -> dict[str, str]:
    facts = facts_of(model)
    try:
        return {'classes': json.dumps(facts['classes']), KEY: json.dumps(facts)}
    except TypeError as error:
        raise ExportError(
            f'The pipeline of the test data cannot be written as JSON ({error}): give each transform as a dict with a '
            'type in quotes and plain arguments'
        ) from None


def _as_onnx(program: ExportedProgram, metadata: dict[str, str], *, optimize: bool) -> bytes:
    from frdet.apis.export.translations import OPSET, translations

    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the exporter warns about itself
        converted: Any = torch.onnx.export(
            program,
            opset_version=OPSET,
            custom_translation_table=translations(),
            dynamic_shapes=tuple(AXES[name] for name in INPUTS),
            input_names=INPUTS,
            output_names=OUTPUTS[: len(program.graph_signature.user_outputs)],
            verbose=False,
            optimize=optimize,
        )
    converted.model.metadata_props.update(metadata)
    return converted.model_proto.SerializeToString()


def _as_pt2(program: ExportedProgram) -> bytes:
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'No complete tensor found')  # a wrong warning for weights in channels_last
        torch.export.save(program, content)
    return content.getvalue()
