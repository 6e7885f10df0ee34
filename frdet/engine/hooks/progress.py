"""Progress bars of training and evaluation on a terminal."""

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
    """Shows a bar of training with iterations, ETA and losses below the log, and a bar of each validation or test.

    If stdout or stderr is not a terminal, there are no bars. The numbers are means as in the log. MMEngine's message
    hub has them in host memory already, so no step waits for the GPU to show them.
    """

    def __init__(self) -> None:
        self._bars: list[Bar] = []  # training, and the validation within it
        self._streams: list[tuple[logging.StreamHandler, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """Show a bar that includes the iterations before a resumed checkpoint."""
        self._open(_epoch(runner), runner.max_iters, runner)
        self._advance(runner.iter)

    def before_val_epoch(self, runner: Runner) -> None:
        self._open('Validating', len(runner.val_dataloader), runner)

    def before_test_epoch(self, runner: Runner) -> None:
        self._open('Testing', len(runner.test_dataloader), runner)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        if self._bars:
            self._advance(description=_epoch(runner), eta=runner.message_hub.get_info('eta'), note=_numbers(runner))

    def after_val_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        self._advance(description='Evaluating' if batch_idx + 1 == len(runner.val_dataloader) else 'Validating')

    def after_test_iter(self, runner: Runner, batch_idx: int, *args: Any, **kwargs: Any) -> None:
        self._advance(description='Evaluating' if batch_idx + 1 == len(runner.test_dataloader) else 'Testing')

    def after_train(self, *args: Any, **kwargs: Any) -> None:
        """Remove the bar of the loop that ends."""
        if self._bars:
            self._bars.pop().close()
        while self._streams and not self._bars:
            handler, stream = self._streams.pop()
            handler.setStream(stream)

    after_val_epoch = after_test_epoch = after_train

    def close(self) -> None:
        """Remove all bars; ``DetRunner`` calls this if an error or Ctrl-C ends the run."""
        while self._bars:
            self.after_train()

    def _open(self, description: str, total: int, runner: Runner) -> None:
        if not is_main_process() or not sys.stdout.isatty():
            return
        self._bars.append(Bar(description, total))
        # While a bar is shown, sys.stdout writes above the bar, but the logger still holds the former stream.
        for handler in runner.logger.handlers:
            if type(handler) is logging.StreamHandler and handler.stream is not sys.stdout:
                self._streams.append((handler, handler.setStream(sys.stdout)))

    def _advance(self, count: int = 1, **changes: Any) -> None:
        if self._bars:
            self._bars[-1].advance(count, **changes)


def _epoch(runner: Runner) -> str:
    if isinstance(runner.train_loop, EpochBasedTrainLoop):
        return f'Epoch {min(runner.epoch + 1, runner.max_epochs)}/{runner.max_epochs}, iteration'
    return 'Iteration'


def _numbers(runner: Runner) -> str:
    """Return the learning rate, seconds per iteration and losses, as ``log_processor`` smooths them."""
    scalars, window = runner.message_hub.log_scalars, runner.log_processor.window_size
    values = {name.removeprefix('train/'): value for name, value in scalars.items() if name.startswith('train/')}
    parts = [f'lr {values["lr"].current():.3g}'] if 'lr' in values else []
    parts += [f'{values["time"].mean(window):.3f} s/iter'] if 'time' in values else []
    parts += [f'{name} {value.mean(window):.4f}' for name, value in values.items() if 'loss' in name]
    return '  '.join(parts)
