"""Optimisers of KAN-Coder: AdamW, Muon, and Kalman filters of weights, behind one torch optimiser.

groups.py says which weight follows which rule, optimiser.py runs the rules on whole weights and on ZeRO's shards;
muon.py, kalman_diagonal.py, kalman_matrix.py and moments.py are the rules. Source: MODEL.md section 8.
"""

from .groups import parameter_groups
from .optimiser import Optimiser, make_optimiser

__all__ = ["Optimiser", "make_optimiser", "parameter_groups"]
