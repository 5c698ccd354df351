"""Networks in plain torch.nn: images [B, C, H, W] in, logits [B, num_classes] out."""

from adv_lightning.models.convnet import SmallConvNet
from adv_lightning.models.linear import SoftmaxRegression
from adv_lightning.models.maxout import InputDropout, Maxout, MaxoutMLP
from adv_lightning.models.normalize import Normalize, Normalized
from adv_lightning.models.torchvision_models import TorchvisionModel

__all__ = [
    "InputDropout",
    "Maxout",
    "MaxoutMLP",
    "Normalize",
    "Normalized",
    "SmallConvNet",
    "SoftmaxRegression",
    "TorchvisionModel",
]
