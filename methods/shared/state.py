"""A method's state as plain data: tensors, numbers, strings, lists and dicts, never pickled objects.

A tensor shared before saving is shared after loading. Networks and parameters are loaded in place, into those of a
fresh `build`; other tensors are recreated, as views where they share memory.
"""

from __future__ import annotations

import copy
import enum
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.types import UserError
from methods.shared import parts

TAG, SHARED, FLAGS = "\0", "\0shared", "\0flags"
"""Key that marks a dict as one of ours, and the keys of two entries next to the attributes."""
BYTES_AT_MOST, VALUES_AT_MOST = 64 << 30, parts.PARTS_AT_MOST
"""Limits on the bytes of all tensors and strings of a state, and on the number of its values."""
_ADVICE = "make it local to learn(), or write state_dict and load_state_dict"


class StateError(UserError):
    """State that a checkpoint cannot keep; the message names the attribute."""


def collect(method: Any) -> dict[str, Any]:
    """Serialise every attribute of the method that may have changed. Raises StateError for unsupported values."""
    return _Writer(method).state()


def unkept(method: Any) -> str:
    """Reason why a checkpoint would not restore the method's state, in a sentence; empty if it would.

    Networks that have grown since `build` have no counterpart in a fresh one.
    """
    built, now = method._built["fixed"], parts.fixed(method)
    different = [path for path in {**now, **built} if built.get(path) != now.get(path)]
    if different:
        return f"{different[0].split(':')[0]!r} holds other networks or objects than after build; make them in build"
    return next(iter(_Writer(method).problems), "")


def unplain(saved: Any) -> str:
    """Reason why the result of a custom `state_dict` cannot be kept, in a sentence; empty if it can."""
    if type(saved) is not dict:
        return f"state_dict gives a {type(saved).__name__}, not a dict"
    try:
        measure(saved)
    except StateError as error:
        return str(error)
    plain = (bool, int, float, str, bytes, torch.Size, OrderedDict, *parts.PLAIN[:3])
    for path, part in parts.walk("state", saved):
        if not (part is None or isinstance(part, Tensor) or type(part) in plain):
            return f"{path} is a {type(part).__name__}, which a checkpoint cannot keep"
    return ""


def restore(method: Any, saved: dict[str, Any]) -> None:
    """Restore saved attributes: networks and parameters in place, tensors on the method's device."""
    _Reader(method, saved).put()


def size(saved: dict[str, Any], rebuilt: Any = ()) -> int:
    """Size of a state without the audit's attributes and without the tensors `rebuilt`, in numbers of 32 bits."""
    kept = {key: value for key, value in saved.items() if not key.startswith("audit")}
    return -(-(_n_bytes(kept) - _n_bytes(rebuilt)) // 4)


def _n_bytes(value: Any) -> int:
    """Bytes of all tensors in a value."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(map(_n_bytes, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(_n_bytes, value)) if len(value) <= VALUES_AT_MOST else 0
    return 0


class _Writer:
    """Serialiser of attributes to plain data. Objects that occur twice, or share memory, are written once."""

    def __init__(self, method: Any) -> None:
        self.method, self.attributes = method, parts.attributes(method)
        self.problems: list[str] = []
        self.anchored: dict[int, str] = {}
        """First path of each tensor that is loaded in place, by its id."""
        for path, tensor in parts.anchors(method).items():
            self.anchored.setdefault(id(tensor), path)
        self.shared: list[Any] = []
        self.numbers: dict[int, int] = {}
        """Index in `shared` of each referenced object, by its id."""
        measure(self.attributes)
        self._find_shared()

    def state(self) -> dict[str, Any]:
        found = {key: self.plain(key, value) for key, value in self.attributes.items()}
        built, now = self.method._built["flags"], parts.flags(self.method)
        if changed := {path: flag for path, flag in now.items() if built.get(path) != flag}:
            found[FLAGS] = changed
        if self.shared:
            found[SHARED] = self.shared
        return found

    def plain(self, path: str, value: Any) -> Any:
        if id(value) in self.numbers:
            return self._reference(path, value)
        if isinstance(value, Tensor) and id(value) in self.anchored and self.anchored[id(value)] != path:
            return {TAG: "same", "as": self.anchored[id(value)]}
        return self._plain(path, value)

    def _reference(self, path: str, value: Any) -> Any:
        number = self.numbers[id(value)]
        if number < 0:
            number = self.numbers[id(value)] = len(self.shared)
            self.shared.append(None)
            self.shared[number] = self._plain(path, value)
        return {TAG: "shared", "number": number}

    def _plain(self, path: str, value: Any) -> Any:
        if isinstance(value, nn.Module):
            return {name: tensor.detach().clone() for name, tensor in value.state_dict().items()}
        if isinstance(value, Tensor):
            leaf = value.requires_grad and value.is_leaf and not isinstance(value, nn.Parameter)
            base = self.views.get(id(value))
            if base is not None:
                return {**base, "leaf": leaf}
            kept = value.detach().clone()
            return {TAG: "leaf", "value": kept} if leaf else kept
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, enum.Enum):
            return {TAG: "enum", "name": value.name}
        inside = parts.children(value)
        if inside is None:
            raise StateError(
                f"the attribute {path!r} is of type {type(value).__name__}, which a checkpoint cannot keep; {_ADVICE}"
            )
        made = {key: self.plain(parts.below(path, key), part) for key, part in inside.items()}
        return self._contained(path, value, made)

    def _contained(self, path: str, value: Any, made: dict[Any, Any]) -> Any:
        kind = type(value)
        if kind in (list, tuple):
            return kind(made.values())
        if isinstance(value, dict):
            for key in made:
                if not _is_key(key) or key == TAG:
                    raise StateError(f"the attribute {path!r} has the key {key!r:.50}, which a checkpoint cannot keep")
        if kind is dict:
            return made
        if kind in (set, frozenset) and any(isinstance(part, nn.Module | nn.Parameter) for part in value):
            self.problems.append(f"{path!r} is a set of networks or parameters, which has no order; make it a list")
        if kind in (set, frozenset, deque):
            return {TAG: kind.__name__, "items": list(made.values()), "most": getattr(value, "maxlen", None)}
        return {TAG: "filled", "items": made}

    # -- before anything is written ------------------------------------------------------------------

    def _find_shared(self) -> None:
        times: Counter[int] = Counter()
        tensors: dict[int, tuple[str, Tensor]] = {}
        for key, value in self.attributes.items():
            for path, part in _strictly(key, value, ()):
                if isinstance(part, list | dict | set | deque):
                    times[id(part)] += 1
                elif isinstance(part, Tensor) and id(part) not in self.anchored:
                    times[id(part)] += 1
                    tensors.setdefault(id(part), (path, part))
        self.numbers = {identity: -1 for identity, n in times.items() if n > 1}
        self.views: dict[int, dict[str, Any]] = {}
        """View descriptions of the tensors that share memory with another one, by their ids."""
        self._find_views(tensors)

    def _find_views(self, tensors: dict[int, tuple[str, Tensor]]) -> None:
        anchored = [(path, tensor) for path, tensor in parts.anchors(self.method).items()]
        groups: dict[int, list[tuple[str, Tensor]]] = {}
        for path, tensor in (*anchored, *tensors.values()):
            if tensor.layout is torch.strided and tensor.numel():
                groups.setdefault(tensor.untyped_storage()._cdata, []).append((path, tensor))
        for group in groups.values():
            own = [(path, tensor) for path, tensor in group if id(tensor) not in self.anchored]
            if len(group) > 1 and own:
                self._cut(group, own)

    def _cut(self, group: list[tuple[str, Tensor]], own: list[tuple[str, Tensor]]) -> None:
        """Write tensors of one storage as views of the largest, preferably one that is loaded in place."""
        by_size = sorted(group, key=lambda entry: (id(entry[1]) in self.anchored, entry[1].numel()), reverse=True)
        for path, tensor in own:
            over = [entry for entry in by_size if entry[1] is not tensor and _meet(entry[1], tensor)]
            if not over:
                continue
            bases = (t for _, t in by_size if t.is_contiguous() and t.dtype == tensor.dtype and _covers(t, tensor))
            base = next(bases, None)
            if base is None or (base is tensor and not all(_covers(base, other) for _, other in over)):
                self.problems.append(
                    f"{path!r} and {over[0][0]!r} share memory in a way that cannot be kept; clone one"
                )
            elif base is not tensor:
                offset = tensor.storage_offset() - base.storage_offset()
                cut = {TAG: "view", "size": list(tensor.shape), "stride": list(tensor.stride()), "offset": offset}
                self.views[id(tensor)] = cut | {"of": self._base(base)}

    def _base(self, base: Tensor) -> str | int:
        """Path of a tensor that is loaded in place, or an index in `shared`."""
        if id(base) in self.anchored:
            return self.anchored[id(base)]
        if self.numbers.get(id(base), -1) < 0:
            self.numbers[id(base)] = len(self.shared)
            self.shared.append(self._plain("", base))
        return self.numbers[id(base)]


class _Reader:
    """Deserialiser of plain data."""

    def __init__(self, method: Any, saved: dict[str, Any]) -> None:
        self.method = method
        self.saved = {key: value for key, value in saved.items() if key not in (SHARED, FLAGS)}
        self.shared: list[Any] = saved.get(SHARED, [])
        self.flags: dict[str, bool] = saved.get(FLAGS, {})
        self.made: dict[int, Any] = {}

    def put(self) -> None:
        self.anchors = parts.anchors(self.method)
        for key, value in self.saved.items():
            setattr(self.method, key, self.read(value, getattr(self.method, key, None)))
        parts.set_flags(self.method, self.flags)

    def read(self, value: Any, current: Any) -> Any:
        if isinstance(current, nn.Module):
            current.load_state_dict(value)
            return current
        if isinstance(value, Tensor):
            return self._tensor(value, current)
        if isinstance(value, list | tuple):
            old = current if isinstance(current, list | tuple) else ()
            return type(value)([self.read(part, old[i] if i < len(old) else None) for i, part in enumerate(value)])
        if isinstance(value, dict):
            if TAG in value:
                return getattr(self, "_read_" + value[TAG])(value, current)
            return self._mapping(value, current)
        return value

    def _mapping(self, value: dict[Any, Any], current: Any) -> dict[Any, Any]:
        old = parts.children(current) or {}
        return {key: self.read(part, old.get(key)) for key, part in value.items()}

    def _tensor(self, value: Tensor, current: Any) -> Tensor:
        if not isinstance(current, nn.Parameter):
            return value.to(self.method.device)
        if current.shape == value.shape and current.dtype == value.dtype:
            current.data.copy_(value)  # in place, so that tensors that share its memory still do
        else:
            current.data = value.to(self.method.device)
        return current

    def _read_same(self, value: dict[str, Any], _: Any) -> Tensor:
        return self.anchors[value["as"]]

    def _read_shared(self, value: dict[str, Any], current: Any) -> Any:
        number = value["number"]
        if number not in self.made:
            self.made[number] = self.read(self.shared[number], current)
        return self.made[number]

    def _read_view(self, value: dict[str, Any], current: Any) -> Tensor:
        of = value["of"]
        base = self.anchors[of] if isinstance(of, str) else self._read_shared({"number": of}, None)
        base = base.detach()
        cut = base.as_strided(value["size"], value["stride"], base.storage_offset() + value["offset"])
        return cut.requires_grad_() if value["leaf"] else cut

    def _read_leaf(self, value: dict[str, Any], _: Any) -> Tensor:
        return value["value"].to(self.method.device).requires_grad_()

    def _read_enum(self, value: dict[str, Any], current: Any) -> Any:
        return type(current)[value["name"]]  # type: ignore[index]

    def _read_set(self, value: dict[str, Any], _: Any) -> Any:
        return set(self.read(value["items"], None))

    def _read_frozenset(self, value: dict[str, Any], _: Any) -> Any:
        return frozenset(self.read(value["items"], None))

    def _read_deque(self, value: dict[str, Any], current: Any) -> Any:
        return deque(self.read(value["items"], list(current) if current else None), value["most"])

    def _read_filled(self, value: dict[str, Any], current: Any) -> Any:
        """Recreate an object of the class found here after `build`: a dataclass, named tuple or dict subclass."""
        items = self._mapping(value["items"], current)
        if isinstance(current, tuple):
            make = getattr(type(current), "_make", type(current))
            return make(list(items.values()))
        if isinstance(current, dict):
            current.clear()
            current.update(items)
        elif isinstance(current, list):
            current[:] = list(items.values())
        else:
            current = copy.copy(current)
            for name, part in items.items():
                object.__setattr__(current, name, part)
        return current


def measure(values: dict[str, Any]) -> None:
    """Raise StateError for a state that is cyclic or too large."""
    n_bytes = n_values = 0
    for key, value in values.items():
        for path, part in _strictly(key, value, ()):
            n_values += 1 + (len(part) if isinstance(part, list | tuple | dict | set | deque) else 0)
            n_bytes += len(part) if isinstance(part, str | bytes) else 0
            some = part.state_dict().values() if isinstance(part, nn.Module) else [part]
            n_bytes += sum(t.numel() * t.element_size() for t in some if isinstance(t, Tensor))
            if n_values > VALUES_AT_MOST or n_bytes > BYTES_AT_MOST:
                raise StateError(
                    f"the state is too large: with {path!r} it has {n_values} values and {n_bytes / 2**30:.3g} GiB; "
                    f"at most {VALUES_AT_MOST} values and {BYTES_AT_MOST >> 30} GiB are kept"
                )


def _is_key(key: Any) -> bool:
    if type(key) is tuple:
        return all(map(_is_key, key))
    return key is None or type(key) in (bool, int, float, str)


def _strictly(path: str, value: Any, above: tuple[int, ...]) -> Any:
    """Same as `parts.walk`, but raises StateError for cycles."""
    if id(value) in above:
        raise StateError(f"the attribute {path!r} leads back to itself, which a checkpoint cannot keep; {_ADVICE}")
    yield path, value
    for key, part in (parts.children(value) or {}).items():
        yield from _strictly(parts.below(path, key), part, (*above, id(value)))


def _span(tensor: Tensor) -> tuple[int, int]:
    """Range of its storage that a tensor uses: the first element, and the one after the last."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    start = int(tensor.storage_offset())
    return start, start + int(last) + 1


def _meet(a: Tensor, b: Tensor) -> bool:
    (a_start, a_stop), (b_start, b_stop) = _span(a), _span(b)
    return a_start < b_stop and b_start < a_stop


def _covers(a: Tensor, b: Tensor) -> bool:
    (a_start, a_stop), (b_start, b_stop) = _span(a), _span(b)
    return a_start <= b_start and b_stop <= a_stop
