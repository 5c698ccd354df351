from __future__ import annotations

import torch
from torch import nn

from adv_lightning.attacks.model_mode import is_compiled


def test_tells_whether_a_module_is_compiled() -> None:
    eager, in_place, inner = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
    in_place.compile(backend="eager")
    wrapped = torch.compile(inner, backend="eager")
    assert [is_compiled(module) for module in (eager, in_place, wrapped, inner)] == [False, True, True, False]
    assert not is_compiled(nn.Sequential(in_place))
