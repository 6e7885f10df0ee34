"""A data set of images with boxes in any format. One byte array holds the records of all images."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from frdet.datasets.annotations import Annotations, Id
from frdet.datasets.classes import choose_classes, with_class_list
from frdet.datasets.locating import locate
from frdet.datasets.splitting import Split, checked_split, describe, take_part
from frdet.datasets.transforms.masks import entries_of
from frdet.errors import BrokenImageError, ConfigError, DataError, defined, near_names
from frdet.registry import DATASETS, TRANSFORMS

MAX_IN_A_ROW = 10  # so many broken images in a row stop training


class ImagePrefix(TypedDict):
    """Folders of a data set."""

    img: str


class ImageFilter(TypedDict, total=False):
    """Images to leave out of training."""

    filter_empty_gt: bool
    min_size: int


class DetDataset(BaseDataset):
    """Images with boxes. A format is a subclass with one method, ``read``, which returns ``Annotations``.

    A record is a dict: ``img_id``, ``img_path``, ``height``, ``width``, ``gt_bboxes`` (n, 4) float32 xyxy in pixels of
    the image and cut to it, ``gt_labels`` (n,) int64, and ``gt_crowd`` (n,) bool. ``gt_crowd`` is also true for ignored
    objects, because neither is trained on. ``with_masks`` adds ``gt_masks``, see ``frdet.datasets.transforms``. Label k
    is ``metainfo['classes'][k]``; in the annotations it has the category id ``cat_ids[k]``, which is None if they lack
    the class.

    In training, the next image replaces an image that is missing or cannot be decoded. No random number is drawn for
    that, so a resumed run sees the same images. ``BrokenImagesHook`` logs and counts the replaced images. It finds
    their messages in the sample's ``broken_images``; if the pipeline packs no sample, the loader of a training takes
    them from ``unpacked`` and hands them on.

    Args:
        ann_file: the file or folder that ``read`` reads, relative to ``data_root`` or absolute.
        data_root: folder of the data set.
        data_prefix: ``img`` is the folder of the images, relative to ``data_root`` or absolute.
        part: ``train``, ``val`` or ``test``: use only this part of the images. Without ``split``, the data define the
            parts, and a format without parts refuses it. None uses all images.
        split: divide all images into parts, of which ``part`` chooses one: shares ``val=0.2`` and ``test=0.0``, the
            rest for training, and ``seed=0``. Each class is divided in these shares, and so are images without a box.
            All parts must be given the same ``split``. The log has a fingerprint of the division.
        pipeline: transforms, built or as dicts.
        metainfo: ``classes`` chooses and orders classes of the annotations: a list of names, or a text file with one
            name in a line. By default all classes are used in the order of the annotations. A chosen class may be
            missing in the annotations, for example of a small validation set; the log says so. ``N/A`` leaves a label
            unused unless a category has this name: torchvision's labels are category ids, which have gaps.
        with_masks: read the masks, too. Every object must have one, also a crowd and an ignored object.
        filter_cfg: images to leave out in training. ``filter_empty_gt=True`` leaves out images without an object to
            train on, ``min_size`` images with a side of fewer pixels.
        test_mode: keep every image, and raise an error if a transform returns None.
        kwargs: ``indices``, ``serialize_data``, ``lazy_init``, ``max_refetch`` of MMEngine's ``BaseDataset``.

    Raises:
        ConfigError: ``filter_cfg``, ``data_prefix``, ``indices``, ``part``, ``split`` or the type of ``classes`` is
            wrong.
        DataError: a folder or file is missing, ``read`` fails or returns no ``Annotations``, a class looks like a
            misspelt category, the annotations have none of the classes, an object has no mask, or no image is left.
        BrokenImageError: on access, in ``test_mode`` or if ten images in a row are broken.
    """

    #: Whether ``read`` knows parts. It then reads only ``self.part``, or all images if that is None.
    has_parts = False

    def __init__(
        self,
        *,
        ann_file: str,
        data_root: str = '',
        data_prefix: ImagePrefix,
        part: str | None = None,
        split: Split | None = None,
        pipeline: Sequence[dict | Callable] = (),
        metainfo: dict[str, Any] | None = None,
        with_masks: bool = False,
        filter_cfg: ImageFilter | None = None,
        test_mode: bool = False,
        **kwargs: Any,
    ):
        if unknown := sorted(set(filter_cfg or {}) - set(ImageFilter.__annotations__)):
            raise ConfigError(f'filter_cfg has {", ".join(unknown)}: it takes {", ".join(ImageFilter.__annotations__)}')
        if set(data_prefix) != {'img'}:
            raise ConfigError(f'data_prefix is {dict(data_prefix)!r}: expected dict(img=<folder of the images>)')
        if near := near_names('classes', set(metainfo or ()) - {'classes'}, sure=True):
            raise ConfigError(f'metainfo has {near[0]}: did you mean classes?')
        if kwargs.get('indices') in (0, [], ()):
            raise ConfigError('indices keeps no image: give the number of first images to keep, or a list of positions')
        if part is not None and split is None and not self.has_parts:
            raise ConfigError(
                f'part is {part!r}, and {type(self).__name__} has no parts: divide its images by split=dict(val=0.2)'
            )
        self.split = checked_split(split, part) if split is not None else None
        self.chosen = part  # the part that this data set uses
        self.part = part if split is None else None  # the part that ``read`` reads
        self._division = ''  # the division in words, once the annotations are read
        self.with_masks = with_masks
        self.cat_ids: list[Id | None] = []
        self.left_out: dict[str, int] = {}  # number of images that ``filter_cfg`` leaves out, by reason
        self.unpacked: list[str] | None = None  # a loader that hands messages on puts a list here
        self.notes: list[str] = []  # what ``annotations`` noticed, a sentence each
        #: A check gets each mistake here, its kind and a message; without it the first one stops the reading.
        self.on_mistake: Callable[[str, str], None] | None = None
        self._annotations: Annotations | None = None
        super().__init__(
            ann_file=str(ann_file),
            data_root=str(data_root),
            data_prefix=dict(data_prefix),
            pipeline=[TRANSFORMS.build(step) for step in pipeline],
            metainfo=with_class_list(metainfo),
            filter_cfg=filter_cfg,
            test_mode=test_mode,
            **kwargs,
        )

    def read(self) -> Annotations:
        """Read ``self.ann_file``. A ValueError becomes a DataError that names the reader and the file."""
        raise ValueError('it has no method read, which returns the Annotations of self.ann_file: write it')

    @property
    def how_to_get(self) -> str:
        """How to get missing data: the last line of the error. A person has data of their own already."""
        return ''

    @property
    def how_to_get_masks(self) -> str:
        """How to get missing masks: the end of the error."""
        return ''

    @contextmanager
    def one_of_many(self) -> Iterator[None]:
        """For ``read``, around the reading of one of several files. With ``on_mistake`` a mistake ends only this
        context, so that a check finds all."""
        try:
            yield
        except ValueError as error:
            if self.on_mistake is None:
                raise
            self.on_mistake('unreadable annotation file', str(error))

    def prepare_files(self) -> None:
        """Called before files are read: a data set may draw or download its files here."""

    @property
    def source(self) -> tuple:
        """What the images and boxes come from: equal for two data sets with the same annotations."""
        split = self.split and tuple(self.split.items())
        return type(self), self.ann_file, self.data_prefix['img'], self.chosen, split

    @property
    def title(self) -> str:
        """``ann_file`` and the part, for messages."""
        return f'{self.ann_file}, part {self.chosen}' if self.chosen else self.ann_file

    def annotations(self) -> Annotations:
        """The annotations of the images of the part. ``test_mode`` keeps them for the metric.

        In training they are read again.

        A file name that no file has becomes that of the file it means, see ``locate``; ``notes`` says so.

        Raises:
            DataError: the annotations cannot be read, or are wrong, or the part has no image.
        """
        if self._annotations is not None:
            return self._annotations
        content = self.read_all()
        if self.split is None or self.chosen is None or not content.images:
            return content
        content, self._division = take_part(content, self.split, self.chosen, self.data_prefix['img'])
        if not content.images:
            raise DataError(f'{self.title} has no image ({self._division}): add images, or enlarge its share')
        return content

    def read_all(self) -> Annotations:
        """The annotations of the images of all parts that ``split`` makes; otherwise as ``annotations``."""
        self.notes = []
        try:
            content = self.read()
            if not isinstance(content, Annotations):
                raise ValueError(f'read returns a {type(content).__name__}: expected frdet.datasets.Annotations')
        except ValueError as error:
            raise DataError(f'{defined(type(self))} cannot read {self.ann_file}: {error}') from error
        self._locate(content)
        return content

    def _locate(self, content: Annotations) -> None:
        if not Path(folder := self.data_prefix['img']).is_dir():  # annotations may be read where no image is
            return
        located = locate([image['file_name'] for image in content.images], folder)
        for image, name in zip(content.images, located.names, strict=True):
            image['file_name'] = name
        self.notes += located.messages(self.ann_file, folder)

    def __getstate__(self) -> dict[str, Any]:
        """Without the annotations, which worker processes do not need."""
        return {**self.__dict__, '_annotations': None}

    def load_data_list(self) -> list[dict[str, Any]]:
        """A compact record for every image: arrays are plain bytes, and the path has no folder."""
        self.prepare_files()
        self._check_paths()
        content = self.annotations()
        if not content.images:
            raise DataError(f'{self.ann_file} lists no image: images is empty')
        if self.test_mode:
            self._annotations = content
        if self.chosen is not None:
            print_log(f'{self.title}: {describe(content)}{self._division and f"; {self._division}"}', logger='current')
        for note in self.notes:
            print_log(note, logger='current', level=logging.WARNING)
        self._metainfo['classes'], self.cat_ids = choose_classes(
            self._metainfo.get('classes'), content.categories, self.ann_file
        )
        label_of = {name: label for label, name in enumerate(self._metainfo['classes'])}
        labels = content.labels(label_of).astype(np.int32)
        left_out = content.crowd | content.ignored
        chosen = np.flatnonzero(labels >= 0)
        chosen = chosen[np.argsort(content.image_index[chosen], kind='stable')]
        if self.with_masks:
            self._refuse_missing_masks(content, chosen)
        masks = () if content.masks is None else content.masks
        ends = np.searchsorted(content.image_index[chosen], np.arange(1, len(content.images)))
        return [
            {
                **image,
                'boxes': content.boxes[rows].tobytes(),
                'labels': labels[rows].tobytes(),
                'crowd': left_out[rows].tobytes(),
                **({'masks': [masks[k] for k in rows]} if self.with_masks else {}),
            }
            for image, rows in zip(content.images, np.split(chosen, ends), strict=True)
        ]

    def _refuse_missing_masks(self, content: Annotations, chosen: np.ndarray) -> None:
        lacking = [k for k in chosen.tolist() if content.masks is None or content.masks[k] is None]
        if lacking:
            image, what = content.images[content.image_index[lacking[0]]], 'polygons or an RLE as its segmentation'
            raise DataError(
                f'{self.title}: {len(lacking)} of {len(chosen)} objects have no mask, the first in image {image["id"]} '
                f"({image['file_name']}). with_masks=True needs {what} for every object, in COCO's JSON: add them, "
                f'or leave with_masks out to use the boxes. {self.how_to_get_masks}'.rstrip()
            )

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """The record of image ``idx`` for the pipeline; see the class."""
        packed = super().get_data_info(idx)
        return {
            'img_id': packed['id'],
            'img_path': str(Path(self.data_prefix['img'], packed['file_name'])),
            'height': packed['height'],
            'width': packed['width'],
            'gt_bboxes': np.frombuffer(packed['boxes'], dtype=np.float32).reshape(-1, 4).copy(),
            'gt_labels': np.frombuffer(packed['labels'], dtype=np.int32).astype(np.int64),
            'gt_crowd': np.frombuffer(packed['crowd'], dtype=bool).copy(),
            'sample_idx': packed['sample_idx'],
            **({'gt_masks': entries_of(packed['masks'])} if 'masks' in packed else {}),
        }

    def prepare_data(self, idx: int) -> Any:
        """Image ``idx`` after the pipeline, or the next whole image; see the class."""
        broken: list[str] = []
        while True:
            try:
                data = super().prepare_data((idx + len(broken)) % len(self))
                break
            except BrokenImageError as error:
                broken.append(str(error))
                if self.test_mode or len(broken) == min(MAX_IN_A_ROW, len(self)):
                    raise
        if broken:
            sample: Any = data.get('data_samples') if isinstance(data, dict) else None
            if hasattr(sample, 'set_metainfo'):
                sample.set_metainfo({'broken_images': broken})
            elif self.unpacked is None:  # nothing could count the image
                raise BrokenImageError(broken[0])
            else:
                self.unpacked += broken
        return data

    def count(self) -> tuple[int, int, int]:
        """The numbers of images, of boxes to find, and of images without such a box."""
        boxes = [record['crowd'].count(0) for record in map(super().get_data_info, range(len(self)))]
        return len(boxes), sum(boxes), boxes.count(0)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Labels in image ``idx``, for MMEngine's ``ClassBalancedDataset``."""
        return np.unique(self.get_data_info(idx)['gt_labels']).tolist()

    def filter_data(self) -> list[dict[str, Any]]:
        """Leave out images by ``filter_cfg``.

        Raises:
            DataError: no image is left. The message counts the reasons.
        """
        if self.test_mode or not self.filter_cfg:
            return self.data_list
        reasons = [self._reason_to_drop(record) for record in self.data_list]
        kept = [record for record, reason in zip(self.data_list, reasons, strict=True) if not reason]
        self.left_out = Counter(reason for reason in reasons if reason)
        counts = ', '.join(f'{count} {reason}' for reason, count in self.left_out.items())
        total = f'{len(kept)} of {len(self.data_list)} images of {self.ann_file} kept'
        if not kept:
            raise DataError(
                f'{total}: {counts}. Classes: {", ".join(self._metainfo["classes"][:10])}; check metainfo.classes, '
                f'filter_cfg ({dict(self.filter_cfg)}) and the file'
            )
        if self.left_out:
            print_log(f'{total}: {counts}', logger='current')
        return kept

    def _reason_to_drop(self, record: dict[str, Any]) -> str:
        min_size = self.filter_cfg.get('min_size', 0)
        if min(record['height'], record['width']) < min_size:
            return f'are smaller than {min_size} pixels'
        if self.filter_cfg.get('filter_empty_gt', False) and 0 not in record['crowd']:
            return 'have only crowd or ignored boxes' if record['crowd'] else 'have no box of the chosen classes'
        return ''

    def _check_paths(self) -> None:
        root, images = self.data_root or '.', self.data_prefix['img']
        for is_there, missing in (
            (Path(root).is_dir(), f'No data set: the folder {root} does not exist (expected {self.ann_file}).'),
            (Path(self.ann_file).exists(), f'No annotation file {self.ann_file} (data_root {root}).'),
            (Path(images).is_dir(), f'No image folder {images} (data_root {root}).'),
        ):
            if not is_there:
                raise DataError(f'{missing}\n{self.how_to_get}'.rstrip())


def categories_of(dataset: Any) -> dict[str, Id]:
    """Category ids by class name of a ``DetDataset``, built or as a config's dict. Its images need not exist.

    Raises:
        DataError: the annotations cannot be read, or the data set is no ``DetDataset``.
    """
    kind = type(dataset)
    if isinstance(dataset, dict):
        kind = dataset['type'] if callable(dataset['type']) else DATASETS.get(dataset['type'])
    if not (isinstance(kind, type) and issubclass(kind, DetDataset)):
        raise DataError(f'{getattr(kind, "__name__", kind)} is no DetDataset: its category ids are not known')
    if isinstance(dataset, dict):
        dataset = DATASETS.build({'data_prefix': {'img': ''}, **dataset, 'pipeline': [], 'lazy_init': True})
    return dataset.read_all().categories
