"""`kanctl kernel build --on NODE`: a prepared build compiled on a node by the playbook, put together here.

What decides the kernel is decided on this machine; the node gets a plan and gives packages. docs/kernel.md tells more.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from kanctl.errors import BadInputError, KanctlError
from kanctl.inventory import Cluster, Node
from kanctl.kernel.build.plan_folder import write_plan
from kanctl.kernel.build.remote import RESULT
from kanctl.kernel.build.run import BuildPlan, Built, Results, assemble, is_signed
from kanctl.kernel.build.settings import BuildSettings
from kanctl.kernel.build.signing import ensure_key
from kanctl.kernel.build.step import Compiled
from kanctl.kernel.prepare import Prepared

from ..context import playbooks_dir
from ..output import print_note
from ..provisioning.run import ProvisionOptions, provision, raise_for_failures
from .place import cache_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildNode:
    """The node that compiles."""

    cluster: Cluster
    node: Node


def find_node(cluster: Cluster, name: str) -> BuildNode:
    """The one node of that name. Raises BadInputError, with the names there are."""
    for node in cluster.nodes:
        if node.name == name:
            return BuildNode(cluster=cluster, node=node)
    raise BadInputError(f"--on names {name}; {cluster.path} has {', '.join(node.name for node in cluster.nodes)}")


def build_on(
    where: BuildNode, plan: BuildPlan, prepared: Prepared, settings: BuildSettings, *, jobs: int | None
) -> Built:
    """Compile and package on the node; the bundle is the same as that of a local build.

    Raises KanctlError (the build failed there), NodeUnreachableError, SourceUnavailable (a tree of the user's own).
    """
    folder = plan.work / "plan" / f"{plan.profile.name}-{plan.tree.version}"
    write_plan(folder, plan, prepared, settings, packages=cache_dir() / "packages", jobs=jobs)
    results = plan.work / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir()
    variables = {
        "kernel_build_plan_dir": str(folder.resolve()),
        "kernel_build_result_dir": str(results.resolve()),
        "kernel_build_key_file": str(ensure_key(plan.keys).resolve()) if is_signed(prepared.requests) else "",
    }
    name = where.node.name
    print_note(f"building {settings.release} on {name}")
    options = ProvisionOptions(limit=(name,), variables=variables)
    report = provision(playbooks_dir() / "kernel-build.yml", where.cluster.path, (name,), options)
    raise_for_failures(report, ("kanctl", "kernel", "build", "--profile", plan.profile.name), limit_option="--on")
    return assemble(plan, prepared, settings, Results(compiled=read_results(results, name)))


def read_results(folder: Path, node: str) -> Compiled:
    """What was fetched from a node. Raises KanctlError where a file of result.json did not come."""
    answer = json.loads((folder / RESULT).read_text())
    packages = {kind: folder / Path(path).name for kind, path in answer["packages"].items()}
    sbom = [folder / Path(path).name for path in answer["sbom"]]
    missing = [path.name for path in (*packages.values(), *sbom) if not path.is_file()]
    if missing:
        raise KanctlError(f"wanted from {node}: {', '.join(missing)}; found none in {folder}", "run the same command")
    figures = {**answer["figures"], "node": node}
    return Compiled(packages=packages, modules=answer["modules"], figures=figures, sbom=sbom)
