"""Images that training skipped because they are missing or cannot be decoded: logged, counted, limited."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.errors import ConfigError, DataError
from frdet.registry import HOOKS

LEAST = 200  # images; until more have been seen, the share is a share of this number
SHOWN = 3


@HOOKS.register_module()
class BrokenImagesHook(Hook):
    """Logs each broken image once, and stops training if there are too many.

    ``DetDataset`` replaces a broken image by another one and notes this in the sample, which reaches this process from
    any worker. Each process of a distributed run counts its own images, so no process waits for another one. A resumed
    run starts counting again.

    Args:
        max_share: training stops if more than this share of the images was broken, of at least 200 images. With 0.01
            the third broken image among the first 200 stops it, with 0 the first one.
    """

    def __init__(self, *, max_share: float = 0.01):
        if not 0 <= max_share <= 1:
            raise ConfigError(f'BrokenImagesHook: max_share is {max_share!r}, expected a share from 0 to 1')
        self.max_share = max_share
        self.files: dict[str, None] = {}  # in the order of their first use
        self.asked = self.broken = 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count the images of a batch; raise DataError if too many were broken."""
        samples = data_batch.get('data_samples') or () if isinstance(data_batch, dict) else ()
        found = [message for sample in samples for message in sample.get('broken_images', ())]
        loader = runner.train_dataloader
        found += getattr(loader, 'broken_images', ())  # for a pipeline that packs no samples
        self.broken += len(found)
        self.asked += (len(samples) or getattr(loader.batch_sampler, 'batch_size', 1)) + len(found)
        for message in found:
            if message not in self.files:
                self.files[message] = None
                # As an error, because the other processes than the first one log errors only.
                runner.logger.error(f'{message}. Trained on the next image instead')
        if found and self.broken > self.max_share * max(self.asked, LEAST):
            raise DataError(
                f'{self.broken} of {self.asked} images could not be read, more than {self.max_share:.1%} of at least '
                f'{LEAST}: {"; ".join(list(self.files)[:SHOWN])}{"; ..." if len(self.files) > SHOWN else ""}\n'
                'Repair the data (tools/check_data.py --images finds them all), or allow more with '
                'default_hooks.broken_images.max_share'
            )
