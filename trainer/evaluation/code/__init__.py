"""Programs that a model writes, run in a sandbox against the tests of their problems: pass@k beside its baselines."""

from .humaneval import CodeOptions, code_measures, pass_at_k
from .problems import CodeProblem, read_problems
from .sandbox import Outcome, Sandbox, SandboxLimits

__all__ = [
    "CodeOptions",
    "CodeProblem",
    "Outcome",
    "Sandbox",
    "SandboxLimits",
    "code_measures",
    "pass_at_k",
    "read_problems",
]
