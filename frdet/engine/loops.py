"""MMEngine's training loops, which here resume exactly where a checkpoint was saved, also within an epoch.

The random generators are seeded again for each iteration, from the seed of the run, the process and the iteration. So
their state follows from the position, and checkpoints need not hold it, for any number of processes.
"""

from typing import Any

from mmengine.dist import broadcast_object_list, get_rank
from mmengine.runner import EpochBasedTrainLoop as MMEngineEpochLoop
from mmengine.runner import IterBasedTrainLoop as MMEngineIterLoop
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from frdet.datasets.loaders import ResumableLoader, seed_generators
from frdet.registry import LOOPS


@LOOPS.register_module()
class EpochBasedTrainLoop(MMEngineEpochLoop):
    """Training by epochs, with the arguments of MMEngine's loop of this name."""

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **kwargs: Any):
        super().__init__(runner, _loader(runner, dataloader, endless=False), **kwargs)

    def run_epoch(self) -> None:
        """Train the remaining batches of an epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        done = self._batches_done()
        self.seed = _start(self, skip=done)
        for idx, batch in enumerate(self.dataloader, done):
            self.run_iter(idx, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1

    def run_iter(self, idx: int, data_batch: Any) -> None:
        seed_generators(self.seed, get_rank(), self._iter)
        super().run_iter(idx, data_batch)

    def _batches_done(self) -> int:
        """Return how many batches of this epoch a checkpoint that was saved within the epoch has trained."""
        hub, length = self.runner.message_hub, len(self.dataloader)
        begun = hub.get_info('epoch_begin') or {}
        done = self._iter - begun['iter'] if begun.get('epoch') == self._epoch else 0
        if done and begun['length'] != length:
            self.runner.logger.warning(
                f'The checkpoint was saved {done} batches into an epoch of {begun["length"]}, and now an epoch has '
                f'{length}: other data, batch size or processes. The epoch starts again'
            )
            done = 0
        hub.update_info('epoch_begin', dict(epoch=self._epoch, iter=self._iter - done, length=length))
        return done


@LOOPS.register_module()
class IterBasedTrainLoop(MMEngineIterLoop):
    """Training by iterations, with the arguments of MMEngine's loop of this name."""

    def __init__(self, runner: Runner, dataloader: DataLoader | dict, **kwargs: Any):
        super().__init__(runner, _loader(runner, dataloader, endless=True), **kwargs)

    def run(self) -> nn.Module:
        """Train from the checkpoint's iteration, or from the first one, to the last one."""
        runner = self.runner
        runner.call_hook('before_train')
        runner.call_hook('before_train_epoch')
        self.seed = _start(self, skip=self._iter)
        while self._iter < self._max_iters and not self.stop_training:
            runner.model.train()
            self.run_iter(next(self.dataloader_iterator))
            self._decide_current_val_interval()
            due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
            if runner.val_loop is not None and self._iter >= self.val_begin and due:
                runner.val_loop.run()
        runner.call_hook('after_train_epoch')
        runner.call_hook('after_train')
        return runner.model

    def run_iter(self, data_batch: Any) -> None:
        seed_generators(self.seed, get_rank(), self._iter)
        super().run_iter(data_batch)


def _loader(runner: Runner, dataloader: DataLoader | dict, *, endless: bool) -> ResumableLoader:
    loader = runner.build_dataloader(dataloader, seed=runner.seed)
    return ResumableLoader(loader, seed=runner.seed, endless=endless)


def _start(loop: EpochBasedTrainLoop | IterBasedTrainLoop, *, skip: int) -> int:
    """Set the first batch of the next pass over the data. Returns the run's seed, the same in every process."""
    seeds = [loop.runner.seed]
    broadcast_object_list(seeds)
    loop.dataloader.start(seed=seeds[0], rank=get_rank(), iteration=loop.iter, skip=skip)
    return seeds[0]
