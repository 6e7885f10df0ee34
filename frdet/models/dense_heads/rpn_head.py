"""Region proposal network (Faster R-CNN, section 3.1).

Shapes: B images, L levels, A anchors a cell, N anchors an image over all levels in (level, H, W, A) order, S samples.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from frdet.errors import ConfigError
from frdet.models.layers import Conv2d
from frdet.models.losses import box_loss
from frdet.models.task_modules import AssignResult, Proposals, SampleResult, best_scores, select_proposals
from frdet.models.task_modules.targets import IGNORED
from frdet.registry import ANCHOR_GENERATORS, ASSIGNERS, BOX_CODERS, DENSE_HEADS, LOSSES, SAMPLERS, build_parts
from frdet.structures import GroundTruth

NORMALIZERS = ('quota', 'sampled', 'sampled_both')


@DENSE_HEADS.register_module()
class RPNHead(BaseModule):
    """One objectness logit and four deltas for every anchor, from 3x3 convolutions shared by all levels.

    Args:
        in_channels: channels of the feature maps.
        feat_channels: channels after each 3x3 convolution.
        anchor_generator, box_coder, assigner, sampler: the parts, configs or built.
        loss_cls: on objectness; called with logits and 0 or 1.
        loss_bbox: on the boxes of positive anchors.
        normalizer: divisor of both losses. 'quota' is the sampler's ``num`` times B, however many were sampled
            (detectron2); 'sampled' the number of samples (torchvision); 'sampled_both' the same, but every image
            counts at least one positive and one negative (MMDetection).
        trained_within: train only on anchors whose centre lies in their image, after its sides are rounded up to a
            multiple of this (MMDetection, 32). None: train on all anchors, also in the padding (detectron2,
            torchvision).
        allowed_border: train only on anchors that reach less than this beyond the sides of their image, in pixels
            (MMDetection's Cascade R-CNN, 0). None: train on all.
        pre_nms_train, pre_nms_test: number of the best anchors of each level that enter NMS.
        post_nms_train, post_nms_test: number of proposals of an image.
        nms_iou_thr: NMS threshold within a level.
        min_side: proposals are dropped unless both sides are above this, in pixels.
        num_convs: number of 3x3 convolutions, each followed by a ReLU.
        init_cfg: MMEngine's.

    Raises:
        ConfigError: an option has a value that does not exist.
    """

    parts = dict(
        anchor_generator=ANCHOR_GENERATORS, box_coder=BOX_CODERS, assigner=ASSIGNERS, sampler=SAMPLERS,
        loss_cls=LOSSES, loss_bbox=LOSSES,
    )  # fmt: skip
    #: The arguments that decide at each stage of a test which boxes stay. A trace of objects names them.
    stage_keys: Mapping[str, str] = {
        'no anchor': 'anchor_generator.sizes',
        'RPN score': 'pre_nms_test',
        'proposal size': 'min_side',
        'proposal NMS': 'nms_iou_thr',
        'proposal top-k': 'post_nms_test',
    }

    def __init__(
        self,
        *,
        in_channels: int,
        feat_channels: int,
        anchor_generator: dict,
        box_coder: dict,
        assigner: dict,
        sampler: dict,
        loss_cls: dict,
        loss_bbox: dict,
        normalizer: str,
        trained_within: int | None = None,
        allowed_border: float | None = None,
        pre_nms_train: int,
        pre_nms_test: int,
        post_nms_train: int,
        post_nms_test: int,
        nms_iou_thr: float,
        min_side: float = 0.0,
        num_convs: int = 1,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(init_cfg)
        if normalizer not in NORMALIZERS:
            raise ConfigError(f'RPNHead: normalizer is {normalizer!r}, expected one of {", ".join(NORMALIZERS)}')
        if trained_within is not None and trained_within < 1:
            raise ConfigError(f'RPNHead: trained_within is {trained_within}, expected a number of pixels, or None')
        if num_convs < 1:
            raise ConfigError(f'RPNHead: num_convs is {num_convs}, expected 1 or more')
        build_parts(
            self, anchor_generator=anchor_generator, box_coder=box_coder, assigner=assigner, sampler=sampler,
            loss_cls=loss_cls, loss_bbox=loss_bbox,
        )  # fmt: skip
        self.normalizer = normalizer
        self.trained_within = trained_within
        self.allowed_border = allowed_border
        self.pre_nms = {True: pre_nms_train, False: pre_nms_test}
        self.post_nms = {True: post_nms_train, False: post_nms_test}
        self.nms_iou_thr = nms_iou_thr
        self.min_side = min_side

        num_anchors = self.anchor_generator.num_anchors
        channels = [in_channels] + [feat_channels] * num_convs
        convs = [Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels)]
        # MMDetection has these two ways of naming them.
        self.rpn_conv = convs[0] if num_convs == 1 else nn.Sequential(*(nn.ModuleDict({'conv': c}) for c in convs))
        self.rpn_cls = nn.Conv2d(feat_channels, num_anchors, 1)
        self.rpn_reg = nn.Conv2d(feat_channels, num_anchors * 4, 1)
        for layer in (*convs, self.rpn_cls, self.rpn_reg):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.get_parameter('bias'))

    def forward(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Feature maps (B, C, H_l, W_l) -> by level, logits (B, H_l * W_l * A) and deltas (B, H_l * W_l * A, 4)."""
        *first, last = self._convs()
        logits, deltas = [], []
        for feature in _convolve(features, first):
            hidden = F.relu_(last(feature))
            batch = hidden.shape[0]  # len() would be a constant in an exported graph
            logits.append(self.rpn_cls(hidden).permute(0, 2, 3, 1).reshape(batch, -1).float())
            deltas.append(self.rpn_reg(hidden).permute(0, 2, 3, 1).reshape(batch, -1, 4).float())
        return logits, deltas

    def loss(
        self, features: Sequence[Tensor], truth: GroundTruth, image_sizes: Tensor
    ) -> tuple[dict[str, Tensor], Proposals]:
        """Losses of S sampled anchors of each image, and the proposals for the second stage.

        Args:
            features: L maps (B, C, H_l, W_l).
            truth: the ground truth of the batch.
            image_sizes: (B, 2), height and width before padding.
        """
        anchors = self._anchors(features)
        with torch.no_grad():
            assigned = self._assign(torch.cat(anchors), truth, image_sizes)
            sampled = self.sampler.sample_batch(assigned)
        sparse = self._is_sparse(sampled, len(assigned.label[0]))
        with torch.set_grad_enabled(torch.is_grad_enabled() and not sparse):
            logits, deltas = self(features)
        if sparse:
            at_logits, at_deltas = self._predict_at(features, sampled.index)
        else:
            at_logits = torch.cat(logits, dim=1).gather(1, sampled.index)
            at_deltas = torch.cat(deltas, dim=1).gather(1, sampled.index[..., None].expand(-1, -1, 4))
        gt_index = assigned.gt_index.gather(1, sampled.index)
        gt_boxes = truth.boxes.gather(1, gt_index[..., None].expand(-1, -1, 4))
        boxes, positive, avg_factor = torch.cat(anchors)[sampled.index], sampled.positive, self._avg_factor(sampled)
        losses = {
            'loss_rpn_cls': self.loss_cls(at_logits, positive, sampled.valid, avg_factor),
            'loss_rpn_bbox': box_loss(self.loss_bbox, self.box_coder, at_deltas, boxes, gt_boxes, positive, avg_factor),
            'rpn_num_pos': positive.sum() / len(positive),
        }
        return losses, self._propose(anchors, logits, deltas, image_sizes)

    def predict(self, features: Sequence[Tensor], image_sizes: Tensor) -> Proposals:
        """Proposals of a batch. The arguments are explained in ``loss``."""
        logits, deltas = self(features)
        return self._propose(self._anchors(features), logits, deltas, image_sizes)

    def _anchors(self, features: Sequence[Tensor]) -> list[Tensor]:
        shapes = [(f.shape[2], f.shape[3]) for f in features]
        return self.anchor_generator.grid(shapes, features[0].device)

    def _assign(self, anchors: Tensor, truth: GroundTruth, image_sizes: Tensor) -> AssignResult:
        """Labels (B, N) of anchors (N, 4)."""
        if self.trained_within is None and self.allowed_border is None:
            return self.assigner.assign_batch(anchors, truth)
        inside = torch.ones_like(anchors[None, :, 0], dtype=torch.bool)
        if self.trained_within is not None:
            sizes = (image_sizes / self.trained_within).ceil() * self.trained_within
            centres = ((anchors[:, :2] + anchors[:, 2:]) / 2).round()  # they are whole up to rounding errors
            inside = (centres < sizes.flip(1)[:, None]).all(dim=2)
        if self.allowed_border is not None:
            low, high = anchors[:, :2] + self.allowed_border, anchors[:, 2:] - self.allowed_border
            inside = inside & (low >= 0).all(dim=1) & (high < image_sizes.flip(1)[:, None]).all(dim=2)
        # An empty box overlaps nothing, so an anchor outside is the best one of no ground truth.
        assigned = self.assigner.assign_batch(anchors * inside[..., None], truth)
        return assigned._replace(label=assigned.label.masked_fill(~inside, IGNORED))

    def _is_sparse(self, sampled: SampleResult, num_anchors: int) -> bool:
        """Whether so few anchors are sampled that the gradient is computed only there.

        The gradient is the same, but a backward pass over every cell, with zeros at most of them, takes a fifth of a
        training step. 3x3 convolutions before the last one keep that pass, and so does a subclass with its own
        ``forward``.
        """
        return type(self).forward is RPNHead.forward and 4 * sampled.index.shape[1] <= num_anchors

    def _predict_at(self, features: Sequence[Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        """The result of ``forward`` for the anchors ``index`` (B, S): logits (B, S) and deltas (B, S, 4)."""
        num_anchors = self.anchor_generator.num_anchors
        *first, last = self._convs()
        patches = gather_patches(_convolve(features, first), index // num_anchors)
        hidden = F.relu_(F.linear(patches, last.weight.permute(0, 2, 3, 1).flatten(1), last.bias))
        logits = F.linear(hidden, self.rpn_cls.weight.flatten(1), self.rpn_cls.bias)
        deltas = F.linear(hidden, self.rpn_reg.weight.flatten(1), self.rpn_reg.bias).unflatten(-1, (num_anchors, 4))
        anchor = (index % num_anchors)[..., None]
        return (
            logits.gather(2, anchor).squeeze(2).float(),
            deltas.gather(2, anchor[..., None].expand(-1, -1, -1, 4)).squeeze(2).float(),
        )

    def _convs(self) -> list[nn.Conv2d]:
        return [m for m in self.rpn_conv.modules() if isinstance(m, nn.Conv2d)]

    def _avg_factor(self, sampled: SampleResult) -> Tensor | float:
        if self.normalizer == 'quota':
            return float(self.sampler.num * len(sampled.valid))
        if self.normalizer == 'sampled':
            return sampled.valid.sum().clamp(min=1)
        negative = sampled.valid & ~sampled.positive
        return sum(kind.sum(dim=1).clamp(min=1).sum() for kind in (sampled.positive, negative))

    @torch.no_grad()
    def _propose(
        self, anchors: list[Tensor], logits: list[Tensor], deltas: list[Tensor], image_sizes: Tensor
    ) -> Proposals:
        boxes, scores = [], []
        for level_anchors, level_logits, level_deltas in zip(anchors, logits, deltas, strict=True):
            best, index = best_scores(level_logits, self.pre_nms[self.training])
            chosen = level_deltas.gather(1, index[..., None].expand(-1, -1, 4))
            boxes.append(self.box_coder.decode(level_anchors[index], chosen))
            scores.append(best)
        num = self.post_nms[self.training]
        return select_proposals(
            boxes, scores, image_sizes, nms_iou_thr=self.nms_iou_thr, num=num, min_side=self.min_side
        )


def _convolve(features: Sequence[Tensor], convs: Sequence[nn.Conv2d]) -> Sequence[Tensor]:
    for conv in convs:
        features = [F.relu_(conv(feature)) for feature in features]
    return features


def gather_patches(features: Sequence[Tensor], cells: Tensor) -> Tensor:
    """The 3x3 neighbourhoods, zero beyond the border, of cells of several feature maps.

    The host does not wait for a GPU: every cell is looked up in every map, and the values of other levels than its own
    are masked. The backward pass adds in a fixed order.

    Args:
        features: L maps (B, C, H_l, W_l).
        cells: (B, S) int64, numbers of cells, counted over all maps in (level, H, W) order.

    Returns:
        (B, S, 9 * C) in (row, column, channel) order, as the weights of a convolution in channels_last memory.
    """
    near = torch.arange(-1, 2, device=cells.device)
    image = torch.arange(len(cells), device=cells.device)[:, None]
    patches: Tensor | None = None
    start = 0
    for feature in features:
        _, channels, height, width = feature.shape
        # The remainder spreads the cells of other levels over the rows: adding all to one row would be slow.
        y, x = (cells - start) % (height * width) // width, (cells - start) % width
        y, x = (y[..., None] + near)[..., :, None], (x[..., None] + near)[..., None, :]
        own = (cells >= start) & (cells < start + height * width)
        legal = (y >= 0) & (y < height) & (x >= 0) & (x < width) & own[..., None, None]
        row = (image[..., None, None] * height + y.clamp(0, height - 1)) * width + x.clamp(0, width - 1)
        rows = feature.permute(0, 2, 3, 1).reshape(-1, channels)  # a view in channels_last memory
        found = rows[row] * legal[..., None]
        patches = found if patches is None else patches + found
        start += height * width
    assert patches is not None, 'no feature maps'
    return patches.flatten(2)
