"""From a folder of labelled images to a config that trains, and the data of a folder for another config."""

import re
import shlex
from pathlib import Path

import numpy as np

from frdet.apis.own_data.families import DEFAULT, FAMILIES, Family
from frdet.apis.own_data.fitting import Fit, fit
from frdet.apis.own_data.sources import Source, look_at
from frdet.apis.own_data.summary import has_masks, image_sizes, summarise
from frdet.apis.own_data.writing import classes_file, config_text, shown_path
from frdet.errors import ConfigError, DataError
from frdet.files import write_file

FOLDER = Path('configs/mine')  # of the configs that are written


def new_experiment(
    path: str | Path,
    *,
    model: str = DEFAULT,
    out: str | Path | None = None,
    background: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Print what a folder or file of labelled images holds, and write a config that trains on it.

    Args:
        path: data in a format that ``frdet.datasets.formats.recognising.recognise`` knows.
        model: family of the detector, one of ``FAMILIES``.
        out: file of the config; None: ``configs/mine/<name of the folder>.py``, with the model's name if it is not the
            default.
        background: folder of images that show no object, for training.
        overwrite: replace an existing config.

    Returns:
        The file of the config.

    Raises:
        DataError: the data are missing, unreadable or without a box; or the model learns masks, and there are none.
        ConfigError: ``model`` is unknown; or ``out`` is no ``.py`` file, is there already, or cannot be written.
    """
    family = _family(model)
    source = look_at(path, background)
    if family.with_masks and not has_masks(source):
        raise DataError(
            f'{path} has no masks, which {model} learns: expected polygons or RLE in COCO JSON. Without masks: '
            f'--model {DEFAULT}'
        )
    name = _name(source) if model == DEFAULT else f'{_name(source)}_{model}'
    file = Path(out) if out is not None else FOLDER / f'{name}.py'
    _check_file(file, overwrite)
    print(summarise(source, family))
    text, names = config_text(source, fit_to(source), family, file)
    _write({file: text, **({classes_file(file): names} if names is not None else {})})
    shown = shlex.quote(shown_path(file))
    print(
        f'\nWrote {shown}. Next:\n'
        f'  python tools/check_data.py {shown} --images\n'
        f'  python tools/browse_dataset.py {shown}\n'
        f'  python tools/train.py {shown}'
    )
    return file


def fit_to(source: Source) -> Fit:
    """Input size and anchors for the images and boxes of all parts."""
    contents = list(source.contents.values())
    starts = np.cumsum([0, *(len(content.images) for content in contents)])
    objects = [~(content.crowd | content.ignored) for content in contents]
    return fit(
        np.concatenate([image_sizes(content) for content in contents]),
        np.concatenate([content.boxes[kept] for content, kept in zip(contents, objects, strict=True)]),
        np.concatenate([c.image_index[kept] + at for c, kept, at in zip(contents, objects, starts, strict=False)]),
    )


def _family(model: str) -> Family:
    if model not in FAMILIES:
        raise ConfigError(f'--model is {model}: expected one of {", ".join(FAMILIES)}')
    return FAMILIES[model]


def _name(source: Source) -> str:
    return re.sub(r'\W+', '_', Path(source.found.root).resolve().name).strip('_').lower() or 'own_data'


def _check_file(file: Path, overwrite: bool) -> None:
    if file.suffix != '.py':
        raise ConfigError(f'--out is {file}: expected the name of a config, such as configs/mine/cells.py')
    if file.exists() and not overwrite:
        raise ConfigError(f'{file} is there already: give another name by --out, or replace it with --overwrite')


def _write(files: dict[Path, str]) -> None:
    try:
        for file, text in reversed(files.items()):  # the config last: it names the other one
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, text.encode())
    except OSError as error:
        raise ConfigError(f'{file} cannot be written: {error.strerror}. Choose another place by --out') from None
