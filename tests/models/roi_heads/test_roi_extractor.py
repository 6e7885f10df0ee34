import torch
import torchvision

from frdet.models.roi_heads import MultiScaleRoIAlign

ROIS = torch.tensor([[0.0, 3.0, 5.0, 40.0, 30.0], [1.0, 10.0, 0.0, 120.0, 100.0]])


def maps() -> list[torch.Tensor]:
    return [torch.randn(2, 3, 128 // s, 128 // s) for s in (4, 8, 16, 32, 64)]


def test_default_rule_is_detectron2s() -> None:
    """Both RoIs are smaller than 112: the finest level; aligned, samples adapted to the size, 7 x 7."""
    features = maps()
    pooled = MultiScaleRoIAlign(strides=(4, 8, 16, 32))(features, ROIS)
    torch.testing.assert_close(pooled, torchvision.ops.roi_align(features[0], ROIS, 7, 0.25, 0, aligned=True))


def test_arguments_reach_the_operator() -> None:
    features = maps()
    extractor = MultiScaleRoIAlign(
        strides=(4, 8), output_size=3, sampling_ratio=2, aligned=False, canonical_size=64.0, canonical_level=3
    )
    pooled = extractor(features, ROIS)
    # sqrt(37 * 25) = 30 < 64: level 2, the first; sqrt(110 * 100) = 105 > 64: level 3, the second
    for i, (level, scale) in enumerate([(0, 0.25), (1, 0.125)]):
        expected = torchvision.ops.roi_align(features[level], ROIS[i : i + 1], 3, scale, 2, aligned=False)
        torch.testing.assert_close(pooled[i : i + 1], expected)


def test_levels_without_a_stride_are_not_used() -> None:
    features = maps()
    huge = torch.tensor([[0.0, 0.0, 0.0, 5000.0, 5000.0]])
    pooled = MultiScaleRoIAlign(strides=(4, 8, 16, 32))(features, huge)
    features[4].fill_(1e9)
    torch.testing.assert_close(MultiScaleRoIAlign(strides=(4, 8, 16, 32))(features, huge), pooled)
