import csv

from PIL import Image

from frdet.engine.hooks.work_folder import REPORT
from frdet.insight.report import write_files
from tests.insight.report.made import FIRST, make_run, scalars, step


def test_table_and_plots(tmp_path):
    work_dir = make_run(tmp_path)
    names = [
        'results.csv', 'curves.png', 'precision_recall.png', 'classes.png', 'confusion_matrix.png', 'errors.png',
    ]  # fmt: skip
    assert write_files(work_dir) == [work_dir / name for name in names]
    assert set(names) < set(REPORT)  # a new training moves them aside
    with open(work_dir / 'results.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [(row['epoch'], row['iter'], float(row['loss']), row['memory']) for row in rows] == [
        ('1', '2', 3.5, '100'),
        ('2', '4', 2.25, ''),
        ('3', '6', 1.0, '120'),
    ]
    assert [float(row['coco/bbox_mAP']) for row in rows] == [0.1, 0.3, 0.2]
    for name in names[1:]:
        with Image.open(work_dir / name) as image:
            assert image.format == 'PNG' and min(image.size) > 200
            assert image.convert('RGB').getpixel((0, 0)) == (255, 255, 255)
            assert len(image.convert('RGB').getcolors(1 << 20)) > 20  # something is drawn


def test_training_without_validation(tmp_path):
    scalars(tmp_path / FIRST, [step(1, 4.0)])
    assert [path.name for path in write_files(tmp_path)] == ['results.csv', 'curves.png']
