"""Finding the file that a wrong path means: labelling tools write paths of their own machine."""

import functools
import itertools
import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

ENDINGS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.gif')
MOST_ENTRIES, MOST_FOLDERS = 200_000, 1_000  # so many of a folder are read


def describe_missing(path: str) -> str:
    """The end of an error for the image at ``path``, which is not on disk: a similar file, if any, and what to do."""
    address = address_in(path)
    found = 'is an address, and images are read from disk' if address else 'is not on disk'
    if near := near_file(path):
        return f'{found}; {near} is there: correct its name in the annotations'
    if address:
        return f'{found}: fetch the image, and write its path below the image folder into the annotations'
    return f'{found}: add the file, or remove it from the annotations'


def near_file(path: str, folder: str | None = None) -> str | None:
    r"""The path of a file that ``path`` may mean, or None.

    It may differ by / and \, case, ending or Unicode form, or lack some folders. Only a few folders are listed.

    Args:
        path: folder and ``file_name`` of the image, joined.
        folder: folder of all images. None takes the longest beginning of ``path`` that is a folder.
    """
    base = folder or next((str(f) for f in Path(path).parents if f.is_dir() and str(f) != '.'), '')
    address = address_in(path)
    rest = re.split('[?#]', address)[0] if address else path.removeprefix(base)
    parts = [part for part in rest.replace('\\', '/').split('/') if part not in ('', '.', '..')]
    places = [base or '.', os.path.dirname(base) or '.']  # the second if the folder of all images is wrong
    for place, start in itertools.product(places, range(len(parts))):
        if found := _walk(place, parts[start:]):
            return found
    for place, name in itertools.product(places, parts[-1:]):  # images may have been sorted into folders
        for folder in _listing(place).folders:
            if os.path.isfile(found := os.path.join(place, folder, name)):
                return found
    return None


def address_in(path: str) -> str:
    """The part of ``path`` after ``http://``, which ``Path`` makes ``http:/``; empty if it is no address."""
    match = re.search(r'(?:^|/)[a-z][a-z0-9+.-]+:/+(.*)', path, flags=re.IGNORECASE)
    return match[1] if match else ''


def _walk(folder: str, parts: list[str]) -> str | None:
    """The file below ``folder`` whose folders and name are like ``parts``, or None."""
    for number, part in enumerate(parts, start=1):
        is_last = number == len(parts)
        place = os.path.join(folder, part)
        if not (os.path.isfile(place) if is_last else os.path.isdir(place)):
            listing = _listing(folder)
            name = listing.names.get(name_key(part)) or (listing.stems.get(stem_key(part)) if is_last else None)
            if name is None:
                return None
            place = os.path.join(folder, name)
        folder = place
    return folder if os.path.isfile(folder) else None


def name_key(name: str) -> str:
    """The same for names that differ only in case, Unicode form, percent signs and spaces around them."""
    return unicodedata.normalize('NFC', unquote(name)).casefold().strip()


def stem_key(name: str) -> str:
    """The key of an image's name without its ending, which changes when images are converted."""
    stem, ending = os.path.splitext(name_key(name))
    return stem if ending in ENDINGS else name_key(name)


class Listing(NamedTuple):
    """The content of a folder: names by their keys, names of images by their keys without an ending, and folders."""

    names: dict[str, str]
    stems: dict[str, str]
    folders: list[str]


def _listing(folder: str) -> Listing:
    try:
        return _listing_at(folder, os.stat(folder).st_mtime_ns)
    except OSError:
        return Listing({}, {}, [])


@functools.lru_cache(maxsize=8)  # thousands of files may be missing from one folder
def _listing_at(folder: str, changed: int) -> Listing:
    """``changed`` is the time of the folder's last change: after another change it is listed again."""
    listing = Listing({}, {}, [])
    with os.scandir(folder) as entries:
        for entry in itertools.islice(entries, MOST_ENTRIES):
            listing.names.setdefault(name_key(entry.name), entry.name)
            if entry.name.lower().endswith(ENDINGS):
                listing.stems.setdefault(stem_key(entry.name), entry.name)
            elif len(listing.folders) < MOST_FOLDERS and entry.is_dir():
                listing.folders.append(entry.name)
    return listing
