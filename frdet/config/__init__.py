"""Reading a config, changing it by overrides, and checking it before anything is built."""

from frdet.config.checking import check_config
from frdet.config.loading import load_config
from frdet.config.origins import config_origins, origin_table
from frdet.config.overrides import apply_overrides, parse_overrides
from frdet.config.safe import read_text
from frdet.config.text import dump_config

__all__ = [
    'apply_overrides',
    'check_config',
    'config_origins',
    'dump_config',
    'load_config',
    'origin_table',
    'parse_overrides',
    'read_text',
]
