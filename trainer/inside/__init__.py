"""Looking inside a run: loss curves, splines, experts' load, diffusion kernels, and formulas that stand for splines.

Everything is measured where the run is and answered as numbers; the drawing is the controller's, cli/training/draw.py.
"""
