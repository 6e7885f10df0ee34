"""The numbers on the page against others worked out by another way."""

import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.nn import functional as F
from torchvision.ops import box_iou, nms
from torchvision.ops.poolers import LevelMapper

from frdet.datasets.shapes import write_shapes
from frdet.insight.step import inspect_step, prepare
from tests.insight.step.steps import anchors_by_hand, coco_config, shapes_config, table

CLASSES = ['circle', 'square', 'triangle', 'star', 'ring', 'cross']
LEVELS = ['p2', 'p3', 'p4', 'p5', 'p6']


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    return write_shapes(tmp_path_factory.mktemp('drawn') / 'shapes', num_train=4, num_val=2)


@pytest.fixture(scope='module')
def still(drawn):
    """A step of two images that leaves the weights as they are, so that the model can be asked again."""
    cfg = shapes_config(drawn, **{'optim_wrapper.optimizer.lr': 0.0})
    return inspect_step(cfg, images=['1', '2'])


def maps(record):
    model = record.prepared.model
    with torch.no_grad():
        batch = model.data_preprocessor(pseudo_collate(record.prepared.items), True)
        features = model.extract_features(batch['inputs'])
        return features, *model.rpn_head(features)


def test_anchors_match_as_a_loop_says(still):
    page, record = still
    sizes = [16, 32, 64, 128, 256]
    for image, sample in enumerate(record.samples):
        shapes = [tuple(o.shape[1:3]) for o in record.objectness]
        levels = anchors_by_hand(shapes, [4, 8, 16, 32, 64], sizes, [0.5, 1, 2])
        iou = box_iou(torch.cat(levels), sample.gt_instances.bboxes)
        positive = iou.amax(dim=1) >= 0.7
        for g in range(iou.shape[1]):  # every best anchor of a ground truth
            positive |= iou[:, g] == iou[:, g].max()
        negative = (iou.amax(dim=1) < 0.3) & ~positive
        found = table(page, 'Anchors by level', image)
        start = 0
        for name, boxes in zip(LEVELS, levels, strict=True):
            here = slice(start, start := start + len(boxes))
            row = found[name]
            assert row['anchors'] == len(boxes)
            assert (row['positive'], row['negative']) == (int(positive[here].sum()), int(negative[here].sum()))
            assert row['ignored'] == len(boxes) - row['positive'] - row['negative']
            assert row['sampled positive'] == row['positive']  # fewer than the quota of 128
        assert found['all']['sampled positive'] + found['all']['sampled negative'] == 256
        answers = iou.argmax(dim=1)
        objects = list(zip(sample.gt_instances.bboxes.tolist(), sample.gt_instances.labels, strict=True))
        for g, row in enumerate(table(page, 'The anchors that answer', image).values()):
            assert row['best IoU'] == pytest.approx(float(iou[:, g].max()), abs=1e-5)
            assert row['positive anchors'] == int((positive & (answers == g)).sum())
            (x1, y1, x2, y2), label = objects[g]
            assert (row['class'], row['pixels']) == (CLASSES[label], f'{x2 - x1:.0f}x{y2 - y1:.0f}')


def test_proposals_at_every_step(still):
    page, record = still
    _, logits, deltas = maps(record)
    levels = anchors_by_hand([tuple(o.shape[1:3]) for o in record.objectness], [4, 8, 16, 32, 64],
                             [16, 32, 64, 128, 256], [0.5, 1, 2])  # fmt: skip
    for image, sample in enumerate(record.samples):
        height, width = sample.img_shape
        survivors, expected = [], {}
        for name, anchors, scores, moves in zip(LEVELS, levels, logits, deltas, strict=True):
            best, index = scores[image].topk(min(300, len(anchors)))
            a, d = anchors[index], moves[image][index]
            size = a[:, 2:] - a[:, :2]
            centre = (a[:, :2] + a[:, 2:]) / 2 + d[:, :2] * size
            size = size * d[:, 2:].exp()
            before = torch.cat([centre - size / 2, centre + size / 2], dim=1)
            boxes = before.clone()
            boxes[:, 0::2].clamp_(0, width)
            boxes[:, 1::2].clamp_(0, height)
            legal = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
            kept = nms(boxes[legal], best[legal], 0.7)
            survivors += [(float(s), name) for s in best[legal][kept]]
            expected[name] = {
                'after top-k': len(index),
                'clipped': int((boxes != before).any(dim=1).sum()),
                'small dropped': int((~legal).sum()),
                'suppressed by NMS': int(legal.sum()) - len(kept),
            }
        chosen = [name for _, name in sorted(survivors, reverse=True)[:150]]
        found = table(page, 'Proposals at every step', image)
        for name in LEVELS:
            row = found[name]
            # Boxes that lie on the edge or at the threshold may fall to either side.
            for key, value in expected[name].items():
                assert row[key] == pytest.approx(value, abs=2), (name, key)
            assert row['kept'] == pytest.approx(chosen.count(name), abs=2)
            assert (
                row['outscored'] == row['after top-k'] - row['small dropped'] - row['suppressed by NMS'] - row['kept']
            )
        assert found['all']['kept'] == int(record.selections[image].kept.sum()) == 150


def test_objectness_is_that_of_the_dense_maps(still):
    _, record = still
    _, logits, _ = maps(record)
    for shown, level in zip(record.objectness, logits, strict=True):
        torch.testing.assert_close(shown.flatten(1), level.sigmoid(), atol=1e-5, rtol=1e-4)


def test_losses_are_sums_over_what_was_sampled(still):
    page, record = still
    found = table(page, 'value = weight')
    objectness = torch.cat([o.flatten(1) for o in record.objectness], dim=1)
    total = 0.0
    for matching, scores in zip(record.anchors, objectness, strict=True):
        target = (matching.label == 1).float()
        total += float(F.binary_cross_entropy(scores, target, reduction='none')[matching.sampled].sum())
    row = found['loss_rpn_cls']
    assert (row['terms'], row['normaliser']) == (512, 512)
    assert row['sum'] == pytest.approx(total, rel=1e-4)
    total = sum(float(-r.scores[torch.arange(len(r.label)), r.label].log().sum()) for r in record.rois)
    row = found['loss_cls']
    assert (row['terms'], row['normaliser']) == (128, 128)
    assert row['sum'] == pytest.approx(total, rel=1e-4)
    for name, row in found.items():
        if name != 'total':
            assert row['value'] == pytest.approx(row['sum'] / row['normaliser'])
    assert sum(float(row['share'].rstrip('%')) for row in found.values()) == pytest.approx(200, abs=0.3)
    assert found['total']['value'] == pytest.approx(sum(r['value'] for n, r in found.items() if n != 'total'))


@pytest.mark.parametrize('shape', [(20, 30), (60, 50), (200, 300)])
def test_rois_know_their_level(still, shape):
    """One RoI of each size, pooled by the model's own extractor."""
    from frdet.insight.step.recording import pooled_from

    features, *_ = maps(still[1])
    box = torch.tensor([[0.0, 5.0, 5.0, 5.0 + shape[1], 5.0 + shape[0]]])
    extractor = still[1].prepared.model.roi_head.roi_extractor
    assert pooled_from(extractor, features, box).tolist() == LevelMapper(2, 5)([box[:, 1:]]).tolist()


def test_sampled_rois(still):
    page, record = still
    for image, (rois, sample) in enumerate(zip(record.rois, record.samples, strict=True)):
        iou, answers = box_iou(rois.boxes, sample.gt_instances.bboxes).max(dim=1)
        assert torch.equal(rois.positive, iou >= 0.5)
        assert torch.equal(rois.label, sample.gt_instances.labels[answers].masked_fill(iou < 0.5, 6))
        assert torch.equal(rois.targets[rois.positive], sample.gt_instances.bboxes[answers][rois.positive])
        assert torch.equal(rois.level, LevelMapper(2, 5)([rois.boxes]))
        found = table(page, 'Sampled RoIs by level', image)['all']
        assert (found['RoIs'], found['positive']) == (64, int((iou >= 0.5).sum()))
        # What the RPN proposed, without the ground truth that joins it and would always fit best.
        selection = record.selections[image]
        best = box_iou(selection.boxes[selection.kept], sample.gt_instances.bboxes).amax(dim=0)
        rows = table(page, 'The proposals that answer', image).values()
        assert [row['best IoU'] for row in rows] == pytest.approx(best.tolist(), abs=1e-5)
        assert all(row['best IoU'] < 0.999 for row in rows)


def test_pooled_regions_of_both_kinds(still):
    page, record = still
    tiles = [
        t for s in page.sections for b in s.blocks if b['kind'] == 'gallery' for t in b['items'] if 'crops' in t.tags
    ]
    kinds = [tile.tags['crops'] for tile in tiles]
    assert kinds.count('negative') == 16  # 8 an image
    assert kinds.count('positive') == sum(min(16, int(rois.positive.sum())) for rois in record.rois)


def test_refined_boxes_are_what_the_head_predicts(still):
    _, record = still
    model, rois = record.prepared.model, record.rois[0]
    features, *_ = maps(record)
    with torch.no_grad():
        _, deltas = model.roi_head(features, F.pad(rois.boxes, (1, 0)))
    d = deltas[:, 0] / torch.tensor([10.0, 10.0, 5.0, 5.0])
    size = rois.boxes[:, 2:] - rois.boxes[:, :2]
    centre = (rois.boxes[:, :2] + rois.boxes[:, 2:]) / 2 + d[:, :2] * size
    half = size * d[:, 2:].exp() / 2
    torch.testing.assert_close(rois.refined, torch.cat([centre - half, centre + half], dim=1), atol=1e-2, rtol=1e-4)


def test_it_is_the_step_that_training_makes(drawn):
    page, record = inspect_step(shapes_config(drawn), images=['1', '2'], seed=3)
    again = prepare(shapes_config(drawn), None, ['1', '2'], 3)
    before = {name: p.detach().clone() for name, p in again.model.named_parameters()}
    # A data set's random transforms come before the random keys of the samplers, in both.
    values = again.model.train_step(pseudo_collate(again.items), again.optim_wrapper)
    for (name, ours), theirs in zip(record.prepared.model.named_parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)
    found = table(page, 'value = weight')
    for name in ('loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'):
        assert found[name]['value'] == pytest.approx(values[name].item(), rel=1e-5)
    members = [name for name in before if name.startswith('roi_head.bbox_head.fc_cls')]
    change = torch.cat([(again.model.get_parameter(n) - before[n]).flatten() for n in members]).norm()
    size = torch.cat([before[n].flatten() for n in members]).norm()
    assert 'mathdefault' not in page.render()  # labels of a logarithmic axis
    row = table(page, 'Norms by stage')['bbox_head.fc_cls']
    assert row['update / weights'] == pytest.approx((change / size).item(), rel=1e-4)
    assert row['trained parameters'] == sum(before[n].numel() for n in members)


def test_functions_get_their_own_back(drawn):
    _, record = inspect_step(shapes_config(drawn))
    for module in record.prepared.model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks
        for part in (getattr(module, name, None) for name in ('assigner', 'sampler')):
            assert part is None or not {'assign_batch', 'sample_batch'} & set(vars(part))


def test_parts_as_built(coco_root):
    page, record = inspect_step(coco_config(coco_root))
    found = table(page, 'Parts, parameters')
    assert [row['type'] for row in found.values()] == ['DetPreprocessor', 'ResNet', 'FPN', 'RPNHead', 'StandardRoIHead']
    # Stem 3*16*49, layer1 of a quarter of ResNet-18 4 * 16*16*9; FrozenBN has no parameters.
    assert found['backbone']['frozen'] == 2352 + 4 * 2304
    height, width = record.samples[0].batch_input_shape
    assert found['data_preprocessor']['output'] == f'1x3x{height}x{width}'
    assert found['neck']['output'].startswith(f'1x32x{height // 4}x{width // 4}; 1x32x{height // 8}')
    assert all(row['ms'] > 0 for row in found.values())
    assert table(page, 'Norms by stage')['backbone.layer1']['gradient'] is None


def test_an_image_of_the_validation(drawn):
    """It is read as in testing, with its boxes, and not mirrored."""
    record = inspect_step(shapes_config(drawn, **{'val_dataloader.dataset.data_root': str(drawn)}), split='val')[1]
    (sample,) = record.samples
    assert (record.prepared.dataset.test_mode, len(record.prepared.dataset)) == (True, 2)
    assert 'val2017' in sample.img_path and not sample.get('flip')
    assert len(sample.gt_instances) == len(record.prepared.records[0]['gt_bboxes']) > 0
