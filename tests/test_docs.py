"""Numbers, keys and files that the documentation names are the code's."""

import re
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from frdet import registry
from frdet.apis import train_detector
from frdet.config import load_config
from frdet.datasets.shapes import write_shapes
from frdet.engine.loops import EpochBasedTrainLoop
from frdet.errors import ConfigError
from frdet.ops.loading import is_native
from frdet.registry import DETECTORS

ROOT = Path(__file__).resolve().parents[1]


def test_scaling_counts_the_reference_models_parameters():
    page = (ROOT / 'docs/scaling.md').read_text()
    model = DETECTORS.build(load_config(ROOT / 'configs/faster_rcnn/r50_fpn_1x_coco.py').model)
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert f'trains {trained:,} parameters ({total:,} less the frozen stem and layer1)' in page
    assert f'= {4 * trained / 1e6:.1f}' in page


THEIRS = {'model.roi_head.bbox_roi_extractor'}  # MMDetection's
KEY = (
    r'(?:model|(?:train|val|test)_(?:dataloader|cfg)|optim_wrapper|param_scheduler|auto_scale_lr|default_hooks'
    r'|env_cfg|randomness|visualizer)\.[\w.]+'
)


def keys(page: Path) -> set[tuple[str, str]]:
    """Config keys that stand by themselves between backticks, with the value where they have one, or ''."""
    found = re.findall(rf'`"?({KEY})(?:=([^`"]*)"?)?`', page.read_text())
    return {(key, value) for key, value in found if key not in THEIRS}


@pytest.mark.parametrize(
    'page', sorted({*(ROOT / 'docs').glob('*.md')} - {ROOT / 'docs/peers.md'}), ids=lambda page: page.stem
)
def test_config_keys_exist(page):
    """In the 1x config, or, where a loop counts iterations, in that one; peers.md has a test of its own."""
    for key, value in keys(page):
        refusals = [
            refusal(f'configs/faster_rcnn/{name}.py', key, value) for name in ('r50_fpn_1x_cocoval', 'r50_fpn_90k_coco')
        ]
        if all(refusals):
            pytest.fail(f'{page.name}: {refusals[0]}')


def refusal(config: str, key: str, value: str = '') -> str | None:
    """Why an override of ``key`` would be refused, unless it is because of its value."""
    try:
        load_config(ROOT / config, [f'{key}={value or None}'])
    except ConfigError as error:
        return None if 'expected' in str(error) else str(error)
    return None


def test_a_key_that_does_not_exist_is_found():
    assert 'dept' in refusal('configs/faster_rcnn/r50_fpn_1x_cocoval.py', 'model.backbone.dept')
    assert 'optim_wrapper.accumulative_counts' in dict(keys(ROOT / 'docs/scaling.md'))
    assert dict(keys(ROOT / 'docs/configs.md'))['default_hooks.ema'] == 'dict(type=EMAHook)'


def test_the_lines_that_train_without_weights(tmp_path, monkeypatch):
    """Of docs/checkpoints.md: nothing is loaded, nothing is frozen, and no norm needs statistics."""
    page = (ROOT / 'docs/checkpoints.md').read_text()
    section = page[page.index('**Without network.**') : page.index('## Layouts')]
    (lines,) = re.findall(r'((?:^    .*\n)+)', section, re.M)
    base = f"_base_ = '{ROOT}/configs/_base_/models/faster_rcnn_r50_fpn_v2.py'\n"
    (tmp_path / 'own.py').write_text(base + textwrap.dedent(lines))
    cfg = load_config(tmp_path / 'own.py')
    assert cfg.load_from is None
    with torch.device('meta'):
        model = DETECTORS.build(cfg.model)
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m.init_cfg for m in model.modules() if hasattr(m, 'init_cfg'))
    kinds = {type(m).__name__ for m in model.modules() if 'Norm' in type(m).__name__} - {'ConvNorm'}
    assert kinds == {'GroupNorm'}


def test_the_way_of_a_batch(tmp_path, monkeypatch):
    """docs/architecture.md lists the files of frdet that run in a training step, hooks left out."""
    page = (ROOT / 'docs/architecture.md').read_text()
    read, step = (re.findall(r'^\| (\d+) \| `(\S+)` \|', part, re.M) for part in re.split(r'\n### ', page)[1:3])
    for rows in (read, step):
        assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert f'There are {len(step)} files' in page
    write_shapes(tmp_path / 'shapes', num_train=8, num_val=1)
    cfg = load_config(
        ROOT / 'configs/quickstart/r18_fpn_shapes.py',
        [
            f'train_dataloader.dataset.data_root={tmp_path}/shapes',
            'train_dataloader.batch_size=2',
            'model.backbone.norm.type=FrozenBN',
            'model.backbone.zero_init_residual=False',
            'default_hooks.check_setup=None',  # FrozenBN without weights
            'default_hooks.report=None',
        ],
    )
    run: set[str] = set()
    train = EpochBasedTrainLoop.run_iter

    def note(frame, event, arg):
        path = Path(frame.f_code.co_filename)
        if event == 'call' and path.is_relative_to(ROOT / 'frdet'):
            run.add(str(path.relative_to(ROOT / 'frdet')))

    def train_two(loop, idx, batch):
        """The first step and the reading of the second batch are watched, then the second step; that ends the run."""
        if idx == 0:
            sys.setprofile(note)
        train(loop, idx, batch)
        if idx == 1:
            sys.setprofile(None)
            raise KeyboardInterrupt

    monkeypatch.setattr(EpochBasedTrainLoop, 'run_iter', train_two)
    try:
        with pytest.raises(KeyboardInterrupt):
            train_detector(cfg, work_dir=str(tmp_path / 'work'), validate=False, seed=0)
    finally:
        sys.setprofile(None)
    hooks = {name for name in run if name.startswith('engine/hooks/')}
    listed = {name for _, name in read + step}
    if not is_native(torch.empty(0)):  # torchvision's kernels run in place of ours
        run, listed = ({name for name in names if not name.startswith('ops/')} for names in (run, listed))
    assert run - hooks == listed


def rows(page: str, heading: str) -> dict[str, str]:
    """The first two cells of every row of the tables under a heading."""
    part = re.search(rf'^## {re.escape(heading)}$(.*?)(?=^## |\\Z)', (ROOT / 'docs' / page).read_text(), re.M | re.S)[1]
    return dict(re.findall(r'^\| ([^|]+) \| ([^|]+) \|', part, re.M))


def test_the_list_of_components():
    expected = {}
    for one in vars(registry).values():
        if isinstance(one, registry.Registry):
            one.import_from_location()
            own = sorted(name for name, cls in one.module_dict.items() if cls.__module__.startswith('frdet.'))
            if own:
                expected[one.name] = ', '.join(f'`{name}`' for name in own)
    assert {key: value for key, value in rows('configs.md', 'Components').items() if key != 'kind'} == expected


def test_the_keys_of_a_record_and_of_the_dict_of_a_transform(tmp_path):
    write_shapes(tmp_path / 'shapes', num_train=2, num_val=1)
    cfg = load_config(ROOT / 'configs/quickstart/r18_fpn_shapes.py')
    changes = dict(data_root=str(tmp_path / 'shapes'), with_masks=True)
    dataset = registry.DATASETS.build({**cfg.train_dataloader.dataset, **changes})
    record = dataset.get_data_info(0)
    loaded = registry.TRANSFORMS.build(dict(type='LoadImage'))(dict(record))
    names = rows('plugins.md', 'What a data set gives, and what a transform gets')
    assert {key for cell in names for key in re.findall(r'`(\w+)`', cell)} == set(loaded)
    assert len(record) == 9 and len(loaded) == 14
