"""A pretended CUDA device: tensors that say they lie on cuda:0, with their values on the CPU.

    with pretended() as device:
        torch.ones(3, device="cuda").sum().item()
    device.events    # [Event(kind="host reads", operation="_local_scalar_dense", ...)]

Inside, whatever asks for the device `cuda` gets such tensors, and torch.cuda answers as a machine with one GPU does.
What a GPU refuses raises here too: tensors of two devices in one operation, NumPy, a CPU generator for a tensor of the
device; inside a capture everything that makes the host wait, and a number that the host draws. What makes the host wait
is kept in `device.events` with its place. CUDA graphs are captured and replayed: the operations of the captured body
run again, its Python does not. Random numbers come from a generator of the device's own.

Autograd, torch.func, torch.optim, nn.Module, torch.save and copy.deepcopy work. What is not imitated: kernels of other
libraries (Triton does not see the device), streams that run at the same time, the memory in use, cuDNN's precision, a
captured graph's private memory, and several devices.
"""

from tests.pretended.capture import recorder
from tests.pretended.device import Device, Event
from tests.pretended.driver import pretended
from tests.pretended.rules import WAITS, Kind, Mismatch
from tests.pretended.tensors import CUDA, OnDevice

__all__ = ["CUDA", "WAITS", "Device", "Event", "Kind", "Mismatch", "OnDevice", "pretended", "recorder"]
