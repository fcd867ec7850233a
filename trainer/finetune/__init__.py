"""Fine-tuning: a run's model with a linear head on its hidden state learns to sort labelled texts into their classes.

`python -m kanctl.trainer.finetune` is the edge; importing this package loads nothing.
"""
