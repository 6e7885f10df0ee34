"""Images that training left out because they are missing or cannot be decoded: logged, counted, limited."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from frdet.errors import ConfigError, DataError
from frdet.registry import HOOKS

LEAST = 200  # images: the share is taken of as many until more have been seen
SHOWN = 3


@HOOKS.register_module()
class BrokenImagesHook(Hook):
    """Logs each broken image once, and stops training where they are too many.

    ``DetDataset`` puts another image in place of a broken one and says so in the sample, which reaches this process
    from whichever worker made it. Each process of a distributed run counts the images that it was given itself, so they
    need not wait for one another. A resumed run counts anew.

    Args:
        max_share: training stops where more than this share of the images asked for were broken, of at least 200: with
            0.01 at the third one among the first 200. 0 stops at the first.
    """

    def __init__(self, *, max_share: float = 0.01):
        if not 0 <= max_share <= 1:
            raise ConfigError(f'BrokenImagesHook: max_share is {max_share!r}, expected a share from 0 to 1')
        self.max_share = max_share
        self.files: dict[str, None] = {}  # in the order they were met
        self.asked = self.broken = 0

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Count the images of a batch; raise DataError if too many were broken."""
        samples = data_batch.get('data_samples') or () if isinstance(data_batch, dict) else ()
        found = [message for sample in samples for message in sample.get('broken_images', ())]
        loader = runner.train_dataloader
        found += getattr(loader, 'broken_images', ())  # of a pipeline that packs no samples
        self.broken += len(found)
        self.asked += (len(samples) or getattr(loader.batch_sampler, 'batch_size', 1)) + len(found)
        for message in found:
            if message not in self.files:
                self.files[message] = None
                # As an error, for other processes than the first log nothing less.
                runner.logger.error(f'{message}. Trained on the next image instead')
        if found and self.broken > self.max_share * max(self.asked, LEAST):
            raise DataError(
                f'{self.broken} of {self.asked} images could not be read, more than {self.max_share:.1%} of at least '
                f'{LEAST}: {"; ".join(list(self.files)[:SHOWN])}{"; ..." if len(self.files) > SHOWN else ""}\n'
                'Repair the data (tools/check_data.py --images finds them all), or allow more with '
                'default_hooks.broken_images.max_share'
            )
