"""Key-value state of this group and partition, committed with the position.

It moves with the partition when another host takes it over. Two partitions never share a key. A handler reads what it wrote,
also earlier in the same batch.
"""

from ._state import delete, get, get_json, set, set_json
from ._versioned import Versioned, versioned

__all__ = ["Versioned", "delete", "get", "get_json", "set", "set_json", "versioned"]
