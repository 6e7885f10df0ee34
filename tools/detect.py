"""Draw and save the detections of a detector: python tools/detect.py SOURCE [CONFIG] CHECKPOINT"""

import argparse
import glob
import itertools
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from frdet.interrupts import starting

with starting():
    import cv2
    import numpy as np
    from PIL import Image

    from frdet.apis import Detected, DetInferencer
    from frdet.apis.running import add_model, run_tool
    from frdet.errors import BrokenImageError, DataError
    from frdet.progress import track

VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm')
JSON = 'detections.json'


def main() -> int:
    parser = argparse.ArgumentParser(
        description='Draw what a checkpoint or an ONNX file detects in images or videos, and write it in the form of '
        "COCO's results."
    )
    parser.add_argument(
        'source',
        help="an image, a video, a folder with the folders in it, a quoted pattern such as 'a/*.jpg', or a .txt file "
        'with one path in a line',
    )
    add_model(parser)
    parser.add_argument('--out', default='work_dirs/detect', metavar='DIR', help='folder of the results (%(default)s)')
    parser.add_argument('--score-thr', type=float, default=0.3, help='lowest score of a detection (%(default)s)')
    parser.add_argument('--classes', nargs='+', metavar='NAME', help='keep only these classes')
    parser.add_argument('--batch-size', type=int, default=1, help='images to compute together (%(default)s)')
    parser.add_argument('--device', help='cpu, cuda, cuda:1; default: a GPU if there is one')
    parser.add_argument('--amp', action='store_true', help='bfloat16 where it is safe, on CPU and GPU')
    args = parser.parse_intermixed_args()
    if args.batch_size < 1:
        parser.error('--batch-size must be at least 1')
    out = Path(args.out)
    files = find_files(args.source, out)
    drawn = drawn_files(files, out)
    try:
        for path in (out / JSON, *drawn.values()):
            path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f'{out} cannot be made a folder ({error.strerror}): choose another --out') from None
    detector = DetInferencer(
        args.config, args.checkpoint, args.device,
        cfg_options=args.cfg_options, amp=args.amp, score_thr=args.score_thr, classes=args.classes,
    )  # fmt: skip
    number = itertools.count(1)
    records: list[dict] = []
    broken: list[BrokenImageError] = []
    images = [file for file in files if file.suffix.lower() not in VIDEOS]

    def skip(error: BrokenImageError) -> None:
        print(f'Skipped: {error}', file=sys.stderr)
        broken.append(error)

    for found in detector.stream(track(images, 'Images'), args.batch_size, on_broken=skip):
        file = images[found.number]
        found.save(drawn[file])
        records += found.to_coco(next(number), file_name=str(file))
    for file in sorted({*files} - {*images}):
        try:
            for found in detect_video(detector, file, drawn[file], args.batch_size):
                records += found.to_coco(next(number), file_name=str(file), frame=found.number)
        except BrokenImageError as error:
            skip(error)
    (out / JSON).write_text(json.dumps(records, indent=1))
    done = f'{len(records)} detections in {next(number) - 1} images; drawn, and listed in {out / JSON}'
    print(f'{done}. Unreadable: {len(broken)}' if broken else done)
    return 1 if broken else 0


def find_files(source: str, out: Path) -> list[Path]:
    """The images and videos that ``source`` names, in order, without those in the folder ``out``."""
    path = Path(source)
    if path.is_file():
        return read_list(path) if path.suffix.lower() == '.txt' else [path]
    if path.is_dir():
        if found := sorted(in_folder(path, out)):
            return found
        raise DataError(
            f'{source} and its folders have no image and no video: expected endings such as .jpg, .png, .mp4'
        )
    if found := sorted(file for file in map(Path, glob.glob(source, recursive=True)) if file.is_file()):
        return found
    if source.isdecimal() or re.match(r'[a-zA-Z][\w+.-]+:/', source):
        raise DataError(
            f'{source} is no file; cameras and addresses are not read: download the file, or read the frames with '
            'OpenCV and give them to DetInferencer.stream, as docs/detect.md shows'
        )
    raise DataError(f'{source} is no file, no folder, and no pattern of an existing file')


def in_folder(top: Path, out: Path) -> Iterator[Path]:
    """The images and videos in a folder and its subfolders, also behind links, but not in hidden ones or ``out``."""
    known = {*Image.registered_extensions(), *VIDEOS}
    seen = {os.path.realpath(out)}
    for folder, inner, names in os.walk(top, followlinks=True):
        if os.path.realpath(folder) in seen and folder != str(top):
            inner.clear()
            continue
        seen.add(os.path.realpath(folder))
        inner[:] = [name for name in inner if not name.startswith('.')]
        yield from (Path(folder, name) for name in names if Path(name).suffix.lower() in known)


def read_list(path: Path) -> list[Path]:
    """The files in a list, one in a line. Paths are relative to the working folder or to the folder of the list."""
    try:
        lines = path.read_text(encoding='utf-8').splitlines()
    except UnicodeDecodeError:
        raise DataError(f'{path} is no text: expected one path in a line') from None
    names = [Path(line.strip()) for line in lines if line.strip()]
    if not names:
        raise DataError(f'{path} is empty: expected one path in a line')
    found = [name if name.exists() else path.parent / name for name in names]
    return list({os.path.abspath(file): file for file in found}.values())


def drawn_files(files: list[Path], out: Path) -> dict[Path, Path]:
    """The path of each file's picture or video: a.jpg stays a.jpg, and a.png becomes a.png.jpg.

    Raises:
        DataError: a picture or video would overwrite one of ``files``.
    """
    top = os.path.commonpath([os.path.abspath(file.parent) for file in files])
    names = {file: os.path.relpath(os.path.abspath(file), top) for file in files}
    taken = {*names.values()}
    drawn = {}
    for file, name in names.items():
        ending = '.mp4' if file.suffix.lower() in VIDEOS else '.jpg'
        new = name if Path(name).suffix == ending else name + ending
        while new != name and new in taken:  # a.jpg for the file a, if there is another file a.jpg
            new += ending
        drawn[file] = out / new
    sources = {os.path.realpath(file) for file in files}
    if lost := [path for path in drawn.values() if os.path.realpath(path) in sources]:
        raise DataError(f'{lost[0]} is an input, and would be overwritten: choose another --out')
    return drawn


def detect_video(detector: DetInferencer, file: Path, drawn: Path, batch_size: int) -> Iterator[Detected]:
    """The detections in each frame. The drawn frames are written to ``drawn`` at the same frame rate."""
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
    for number in track(itertools.count(), file.name, total=count if count > 0 else None):
        there, frame = video.read()
        if not there and number == 0:
            raise BrokenImageError(f'video {file} cannot be decoded: no frame could be read')
        if not there:
            return
        yield frame


if __name__ == '__main__':
    run_tool(main)
