"""The text of a config over ``configs/_base_/own_data*.py``. Each path, the classes and the image size stand once."""

import math
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import frdet
from frdet.apis.own_data.families import Family
from frdet.apis.own_data.fitting import COCO_ANCHORS, COCO_RATIOS, Fit
from frdet.apis.own_data.sources import Source
from frdet.config.text import WIDTH, as_code
from frdet.errors import ConfigError

BASES = Path('configs/_base_')
LINES = 40  # a config that would be longer has its classes in a text file
EPOCHS, MOST_EPOCHS = 20, 100
ENOUGH = 2000  # images that a training sees, each as often as there are epochs


def config_text(source: Source, fit: Fit, family: Family, out: Path) -> tuple[str, str | None]:
    """The config for the file ``out``, and the content of its text file of classes, if it has one."""
    names = source.classes
    text = _text(source, fit, family, out, _wrapped_list('classes', names))
    in_file = all(name == name.strip() and len(name.splitlines()) == 1 for name in names)
    if len(text) <= LINES or not in_file:
        return '\n'.join(text) + '\n', None
    text = _text(source, fit, family, out, [f'classes = {shown_path(classes_file(out))!r}  # {len(names)} names'])
    return '\n'.join(text) + '\n', '\n'.join(names) + '\n'


def _text(source: Source, fit: Fit, family: Family, out: Path, classes: list[str]) -> list[str]:
    images = sum(len(content.images) for content in source.contents.values())
    title = f'{images:,} images of {source.path} ({source.found.format}) with {len(source.classes)} classes.'
    return [
        f'"""{_in_docstring(title)}',
        '',
        f'python tools/train.py {_in_docstring(shlex.quote(shown_path(out)))}',
        '"""',
        '',
        f'_base_ = {base_for(out, family.base)!r}',
        '',
        *classes,
        *_unused(source.unused),
        *_data(source, family),
        '',
        f'# {fit.size_reason}.',
        f"resize = dict(type='ResizeShortestEdge', short_side={fit.short_side}, max_size={fit.max_size})",
        'train_pipeline = [',
        "    dict(type='LoadImage'),",
        '    resize,',
        "    dict(type='RandomFlip', prob=0.5),",
        "    dict(type='FilterBoxes'),",
        "    dict(type='PackDetInputs'),",
        ']',
        "test_pipeline = [dict(type='LoadImage'), resize, dict(type='PackDetInputs')]",
        *_loaders(source),
        '',
        *_anchors(fit, family),
        f'# COCO weights ({family.ap}), downloaded once. Without network: docs/checkpoints.md says where to put the '
        'file.',
        f'load_from = {family.weights!r}',
        f'train_cfg = dict(max_epochs={epochs_for(source.num_train)})  # the rate falls after 75% and 92% of them',
    ]


def epochs_for(num_train: int) -> int:
    """20 epochs, and more for fewer than 100 images, so that a training sees 2,000 images; at most 100 epochs."""
    return min(max(EPOCHS, math.ceil(ENOUGH / num_train)), MOST_EPOCHS)


def shown_path(path: str | Path) -> str:
    """``path`` from the current folder if it is inside, with forward slashes; else the absolute path."""
    full = Path(os.path.abspath(path))
    here = Path.cwd()
    return (full.relative_to(here) if full.is_relative_to(here) else full).as_posix()


def base_for(out: Path, name: str) -> str:
    """The path of the base ``name`` for a config at ``out``: relative inside the same repository, else absolute.

    Raises:
        ConfigError: frdet's configs are not there.
    """
    for root in (Path.cwd(), Path(frdet.__file__).resolve().parents[1]):
        if (base := root / BASES / name).is_file():
            folder = Path(os.path.abspath(out)).parent
            return Path(os.path.relpath(base, folder)).as_posix() if folder.is_relative_to(root) else str(base)
    raise ConfigError(
        f'{BASES / name} is neither here nor beside the package frdet: call this in the folder of the repository'
    )


def _wrapped_list(name: str, values: Sequence[str]) -> list[str]:
    """``name = [...]`` in as few lines as possible."""
    lines = [f'{name} = [']
    for value in values:
        item = f'{value!r}, '
        if len(lines[-1]) + len(item) > WIDTH:
            lines[-1] = lines[-1].rstrip()
            lines.append('    ')
        lines[-1] += item
    lines[-1] = lines[-1].rstrip(', ') + ']'
    return lines


def classes_file(out: Path) -> Path:
    """The text file of the classes of the config ``out``."""
    return out.with_name(f'{out.stem}_classes.txt')


def _unused(names: Sequence[str]) -> list[str]:
    if not names:
        return []
    shown = ', '.join(map(repr, names[:3])) + (f' and {len(names) - 3} more' if len(names) > 3 else '')
    return [f'# Left out, because it has no box: {shown}' if len(names) == 1 else f'# Left out, without a box: {shown}']


def _data(source: Source, family: Family) -> list[str]:
    common, _ = _shared(source.parts.arguments)
    masks = dict(with_masks=True) if family.with_masks else {}
    lines = _arguments(dict(type=source.found.reader, data_root=shown_path(source.found.root), **masks, **common))
    lines = [f'    {line},' for line in [*lines, 'metainfo=dict(classes=classes)']]
    if 'split' in common:
        lines[-2] += '  # the same in every run; classes in equal shares, copies on one side'
    lines[-1] += '  # the model has as many classes'
    return ['data = dict(', *lines, ')']


def _shared(parts: Mapping[str, dict[str, Any]]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The arguments that all parts share, and the others of each part."""
    first, *others = parts.values()
    common = {key: value for key, value in first.items() if all(one.get(key) == value for one in others)}
    return common, {name: {k: v for k, v in one.items() if k not in common} for name, one in parts.items()}


def _loaders(source: Source) -> list[str]:
    lines, after = [], []
    for part, own in _shared(source.parts.arguments)[1].items():
        beside = ['pipeline=train_pipeline'] if part == 'train' else ['test_mode=True', 'pipeline=test_pipeline']
        dataset = _call(['**data', *_arguments(own), *beside])
        if len(f'{part}_dataloader = dict(dataset={dataset})') > WIDTH:
            lines.append(f'{part} = {_call(_arguments(own))}')
            dataset = _call(['**data', f'**{part}', *beside])
        if part == 'train' and source.background is not None:
            own = {**source.background, 'data_root': shown_path(source.background['data_root'])}
            shared = ['metainfo=dict(classes=classes)', 'pipeline=train_pipeline']
            lines.append(f'background = {_call([*_arguments(own), *shared])}')
            dataset = f"dict(type='ConcatDataset', datasets=[{dataset}, background])"
        after.append(f'{part}_dataloader = dict(dataset={dataset})')
    if 'test' not in source.parts.arguments:
        after.append('test_dataloader = val_dataloader')
    return lines + after


def _arguments(values: Mapping[str, Any]) -> list[str]:
    """The keywords of a call, in their order."""
    codes = {key: _call(_arguments(v)) if isinstance(v, dict) else as_code(v) for key, v in values.items()}
    return [f'{key}={code}' for key, code in codes.items()]


def _call(arguments: Sequence[str]) -> str:
    return f'dict({", ".join(arguments)})'


def _anchors(fit: Fit, family: Family) -> list[str]:
    if family.anchors is None:
        return []
    changes = []
    if fit.ratios != COCO_RATIOS:
        changes.append(f'ratios={fit.ratios!r}')
    if fit.anchors != COCO_ANCHORS:
        changes.append(f'sizes={tuple(_sizes(side, family.sizes) for side in fit.anchors)!r}')
    lines = [f'# {fit.anchor_reason}.']
    if fit.ratio_reason:
        lines.append(f'# {fit.ratio_reason}.')
    if changes:
        whole = f'model = dict({family.anchors}=dict(anchor_generator={_call(changes)}))'
        if len(whole) > WIDTH:
            lines += ['anchors = dict(', *(f'    {change},' for change in changes), ')']
            whole = f'model = dict({family.anchors}=dict(anchor_generator=anchors))'
        lines.append(whole)
    return lines


def _sizes(side: int, count: int) -> tuple[int, ...]:
    """``count`` sizes from ``side`` to an octave above it, rounded down as torchvision rounds them."""
    return tuple(int(side * 2 ** (step / count)) for step in range(count))


def _in_docstring(text: str) -> str:
    return text.replace('\\', '\\\\').replace('"', '\\"').replace('\n', ' ')
