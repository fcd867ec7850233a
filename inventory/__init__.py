"""The cluster as data: frozen values (model.py) read from an Ansible YAML inventory (load.py)."""

from .model import Cluster, Gpu, Nic, Node

__all__ = ["Cluster", "Gpu", "Nic", "Node"]
