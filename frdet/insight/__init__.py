"""Whatever explains a training or a detector. No other package of frdet imports this one."""
