"""The families of detectors that can be fine-tuned on own data, with the weights to start from."""

from typing import NamedTuple


class Family(NamedTuple):
    """What the config of an experiment needs to know of a family.

    Attributes:
        base: the config under ``configs/_base_``: everything that does not depend on the data.
        weights: address of weights trained on COCO.
        ap: the AP of these weights, of boxes and masks, as their project states it.
        limits: the keys of the model that limit the number of detections.
        anchors: the part of the model whose anchors are fitted to the objects; None: the model has no anchors.
        sizes: number of anchor sizes in each level, in equal parts of an octave.
        with_masks: the detector learns masks.
    """

    base: str
    weights: str
    ap: str
    limits: str = 'roi_head.max_per_image and rpn_head.post_nms_test'
    anchors: str | None = 'rpn_head'
    sizes: int = 1
    with_masks: bool = False


#: By the name that ``--model`` takes. The first one is the default.
FAMILIES = {
    'faster_rcnn': Family('own_data.py', 'torchvision://fasterrcnn_resnet50_fpn_v2', 'AP 46.7'),
    'mask_rcnn': Family(
        'own_data_mask_rcnn.py',
        'torchvision://maskrcnn_resnet50_fpn_v2',
        'AP 47.4 and 41.8',
        with_masks=True,
    ),
    'cascade_rcnn': Family(
        'own_data_cascade_rcnn.py',
        'detectron2://Misc/cascade_mask_rcnn_R_50_FPN_3x/144998488/model_final_480dd8.pkl',
        'AP 44.3',
    ),
    'retinanet': Family(
        'own_data_retinanet.py',
        'torchvision://retinanet_resnet50_fpn_v2',
        'AP 41.5',
        limits='bbox_head.max_per_image',
        anchors='bbox_head',
        sizes=3,
    ),
    'fcos': Family(
        'own_data_fcos.py',
        'torchvision://fcos_resnet50_fpn',
        'AP 39.2',
        limits='bbox_head.max_per_image',
        anchors=None,
    ),
}
DEFAULT = next(iter(FAMILIES))
