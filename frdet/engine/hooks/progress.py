"""Progress of training and evaluation, for a person at a terminal."""

import logging
import sys
from typing import Any

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from frdet.progress import Bar
from frdet.registry import HOOKS


@HOOKS.register_module()
class ProgressHook(Hook):
    """At the foot of a terminal a bar with the iterations, the ETA and the losses, and one for each validation or test.

    The log goes on above the bars. Where stdout or stderr goes to a file or a pipe, there are none. The figures are
    means as in the log, taken from MMEngine's message hub, which has them on the host already: no step waits for the
    GPU to show them.
    """

    def __init__(self) -> None:
        self._bars: dict[str, Bar] = {}
        self._streams: list[tuple[logging.StreamHandler, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Show the bar, with what an earlier run has done."""
        self._open('train', _epoch(runner), runner.max_iters, runner)
        self._advance('train', runner.iter)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        if 'train' in self._bars:
            changes = dict(description=_epoch(runner), eta=runner.message_hub.get_info('eta'), note=_figures(runner))
            self._advance('train', **changes)

    def before_val_epoch(self, runner: Runner) -> None:
        """Show a bar."""
        self._open('val', 'Validating', len(runner.val_dataloader), runner)

    def before_test_epoch(self, runner: Runner) -> None:
        """Show a bar."""
        self._open('test', 'Testing', len(runner.test_dataloader), runner)

    def after_val_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        is_last = batch_idx + 1 == len(runner.val_dataloader)
        self._advance('val', description='Evaluating' if is_last else 'Validating')

    def after_test_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        """Advance the bar."""
        is_last = batch_idx + 1 == len(runner.test_dataloader)
        self._advance('test', description='Evaluating' if is_last else 'Testing')

    def after_val_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self._close('val')

    def after_test_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Take the bar away."""
        self._close('test')

    def after_train(self, runner: Runner) -> None:
        """Take the bar away."""
        self._close('train')

    def close(self) -> None:
        """Take all bars away; ``DetRunner`` does where an error or Ctrl-C ends the run."""
        for mode in list(self._bars):
            self._close(mode)

    def _open(self, mode: str, description: str, total: int, runner: Runner) -> None:
        if not is_main_process() or not sys.stdout.isatty():
            return
        self._bars[mode] = Bar(description, total)
        # While a bar is shown sys.stdout writes above it; the logger holds the stream of before.
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler and handler.stream is not sys.stdout:
                self._streams.append((handler, handler.setStream(sys.stdout)))

    def _advance(self, mode: str, count: int = 1, **changes: Any) -> None:
        if mode in self._bars:
            self._bars[mode].advance(count, **changes)

    def _close(self, mode: str) -> None:
        if mode in self._bars:
            self._bars.pop(mode).close()
        while self._streams and not self._bars:
            handler, stream = self._streams.pop()
            handler.setStream(stream)


def _epoch(runner: Runner) -> str:
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return f'Epoch {min(runner.epoch + 1, runner.max_epochs)}/{runner.max_epochs}, iteration'
    return 'Iteration'


def _figures(runner: Runner) -> str:
    """Learning rate, seconds an iteration and losses, as ``log_processor`` smooths them."""
    scalars, window = runner.message_hub.log_scalars, runner.log_processor.window_size
    values = {name.removeprefix('train/'): value for name, value in scalars.items() if name.startswith('train/')}
    parts = [f'lr {values["lr"].current():.3g}'] if 'lr' in values else []
    parts += [f'{values["time"].mean(window):.3f} s/iter'] if 'time' in values else []
    parts += [f'{name} {value.mean(window):.4f}' for name, value in values.items() if 'loss' in name]
    return '  '.join(parts)
