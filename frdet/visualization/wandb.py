"""Weights & Biases, without a copy of all files."""

from typing import Any

from mmengine.config import Config
from mmengine.visualization import WandbVisBackend as _WandbVisBackend

from frdet.registry import VISBACKENDS


@VISBACKENDS.register_module()
class WandbVisBackend(_WandbVisBackend):
    """MMEngine's backend, with its arguments. It copies code only if ``log_code_name`` is given.

    MMEngine always copies every ``.py`` file below the current folder, and looks for them in all folders there: with a
    virtual environment of 16,000 files, half a minute before the first step.
    """

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record the config, and the code if it was asked for."""
        if self._log_code_name is not None:
            super().add_config(config, **kwargs)
            return
        may_change = (self._init_kwargs or {}).get('allow_val_change', False)
        self.experiment.config.update(config.to_dict(), allow_val_change=may_change)
