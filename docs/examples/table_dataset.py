"""Boxes in a table: a line is `path,x1,y1,x2,y2,class`, and `path,,,,,` an image without a box."""

import csv
from pathlib import Path

from frdet.datasets import Annotations, DetDataset, image_size
from frdet.registry import DATASETS


@DATASETS.register_module()
class TableDataset(DetDataset):
    """Images and boxes of a table; arguments as of `CocoDataset`."""

    def read(self):
        with open(self.ann_file, encoding='utf-8', newline='') as file:
            rows = [row for row in csv.reader(file) if row]
        objects = [row for row in rows if row[5]]
        images = list(dict.fromkeys(row[0] for row in rows))
        classes = sorted({row[5] for row in objects})
        place, label = ({name: k for k, name in enumerate(names)} for names in (images, classes))
        sizes = [image_size(Path(self.data_prefix['img'], path)) for path in images]
        return Annotations(
            images=[dict(file_name=path, height=h, width=w) for path, (h, w) in zip(images, sizes, strict=True)],
            categories=classes,
            boxes=[[float(number) for number in row[1:5]] for row in objects],
            image_index=[place[row[0]] for row in objects],
            category_index=[label[row[5]] for row in objects],
        )
