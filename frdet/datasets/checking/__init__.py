"""Finding all mistakes in annotation files and images, where reading stops at the first one."""

from frdet.moved import moved_names

__getattr__ = moved_names(__name__, dict.fromkeys(('check_data', 'DataReport'), 'frdet.apis.checking'))
