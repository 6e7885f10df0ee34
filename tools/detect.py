"""Draw and save what a detector finds: python tools/detect.py IMAGE|FOLDER|VIDEO|GLOB CONFIG CHECKPOINT"""

import argparse
import collections
import glob
import itertools
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from frdet.apis import DetInferencer, run_tool
from frdet.apis.detect import Detected, read_rgb
from frdet.errors import BrokenImageError, DataError
from frdet.progress import track
from frdet.visualization.drawing import save_image

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm')
JSON = 'detections.json'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Draw what a detector finds in images or videos, and write it in the form of COCO's results."
    )
    parser.add_argument('source', help="an image, a video, a folder of images, or a quoted pattern such as 'a/*.jpg'")
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', help='path or URL of the weights')
    parser.add_argument('--out', default='work_dirs/detect', metavar='DIR', help='folder of the results (%(default)s)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='least score of a detection (%(default)s)')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='keep these classes only')
    parser.add_argument('--batch-size', type=int, default=1, help='images computed together (%(default)s)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1; default: a GPU if there is one')
    parser.add_argument('--amp', action='store_true', help='bfloat16 where it is safe, on CPU and GPU')
    parser.add_argument(
        '--cfg-options', nargs='+', default=[], metavar='KEY=VALUE', help='change the config: a.b.0.c=VALUE'
    )
    args = parser.parse_args()
    if args.batch_size < 1:
        parser.error('--batch-size must be at least 1')
    return args


def main() -> int:
    args = parse_args()
    files = find_files(args.source)
    out = Path(args.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f'{out} cannot be made a folder ({error.strerror}): choose another --out') from None
    detector = DetInferencer(
        args.config, args.checkpoint, args.device,
        cfg_options=args.cfg_options, amp=args.amp, score_thr=args.score_thr, classes=args.classes,
    )  # fmt: skip
    ids, number = detector.category_ids(), itertools.count(1)
    records: list[dict] = []
    broken: list[Path] = []
    top = os.path.commonpath([file.parent for file in files])
    images = [file for file in files if file.suffix.lower() not in VIDEOS]
    read: collections.deque[Path] = collections.deque()
    for found in detector.stream(read_images(images, read, broken), args.batch_size):
        file = read.popleft()
        save_image(found.draw(), target(out, file.relative_to(top), '.jpg'))
        records += found.to_coco(next(number), ids, file_name=str(file))
    for file in sorted({*files} - {*images}):
        try:
            found_frames = detect_video(detector, file, target(out, file.relative_to(top), '.mp4'), args.batch_size)
            for frame, found in enumerate(found_frames):
                records += found.to_coco(next(number), ids, file_name=str(file), frame=frame)
        except BrokenImageError as error:
            print(f'Skipped: {error}', file=sys.stderr)
            broken.append(file)
    (out / JSON).write_text(json.dumps(records, indent=1))
    done = f'{len(records)} detections in {next(number) - 1} images; drawn, and listed in {out / JSON}'
    print(f'{done}. Unreadable: {len(broken)}' if broken else done)
    return 1 if broken else 0


def find_files(source: str) -> list[Path]:
    """The images and videos that ``source`` names, in order."""
    path = Path(source)
    if path.is_file():
        return [path]
    if path.is_dir():
        known = {*Image.registered_extensions(), *VIDEOS}
        if found := sorted(file for file in path.iterdir() if file.suffix.lower() in known):
            return found
        raise DataError(f'{source} has no image and no video in it: expected endings such as .jpg, .png, .mp4')
    if found := sorted(file for file in map(Path, glob.glob(source, recursive=True)) if file.is_file()):
        return found
    raise DataError(f'{source} is no file, no folder, and no pattern that any file fits')


def target(out: Path, name: Path, ending: str) -> Path:
    """Where the drawn file goes: a.png becomes a.png.jpg, so that a.jpg beside it has a place of its own."""
    path = out / (name if name.suffix == ending else f'{name}{ending}')
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def read_images(files: list[Path], read: collections.deque[Path], broken: list[Path]) -> Iterator[np.ndarray]:
    """The images that can be read; their paths go into ``read``, those of others into ``broken``."""
    for file in track(files, 'Images'):
        try:
            image = read_rgb(file)
        except BrokenImageError as error:
            print(f'Skipped: {error}', file=sys.stderr)
            broken.append(file)
            continue
        read.append(file)
        yield image


def detect_video(detector: DetInferencer, file: Path, drawn: Path, batch_size: int) -> Iterator[Detected]:
    """What is found in each frame; the frames with it are written to ``drawn``, as many a second."""
    video = cv2.VideoCapture(str(file))
    writer = None
    try:
        for found in detector.stream(read_frames(video, file), batch_size):
            if writer is None:
                height, width = found.image.shape[:2]
                rate = video.get(cv2.CAP_PROP_FPS) or 25
                writer = cv2.VideoWriter(str(drawn), cv2.VideoWriter.fourcc(*'mp4v'), rate, (width, height))
            writer.write(np.ascontiguousarray(found.draw(min_long_side=1)[..., ::-1]))
            yield found
    finally:
        video.release()
        if writer is not None:
            writer.release()


def read_frames(video: cv2.VideoCapture, file: Path) -> Iterator[np.ndarray]:
    count = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    is_empty = True
    for _ in track(itertools.count(), file.name, total=count if count > 0 else None):
        there, frame = video.read()
        if not there:
            break
        is_empty = False
        yield np.ascontiguousarray(frame[..., ::-1])
    if is_empty:
        raise BrokenImageError(f'video {file} cannot be decoded: no frame could be read')


if __name__ == '__main__':
    run_tool(main)
