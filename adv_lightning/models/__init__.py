"""Networks in plain torch.nn: images [B, C, H, W] to logits [B, num_classes]."""

from adv_lightning.models.convnet import SmallConvNet
from adv_lightning.models.ensemble import Ensemble
from adv_lightning.models.linear import LogisticRegression, SoftmaxRegression
from adv_lightning.models.maxout import InputDropout, Maxout, MaxoutMLP
from adv_lightning.models.normalize import Normalize, Normalized
from adv_lightning.models.rbf import ShallowRBF, class_means
from adv_lightning.models.sigmoid_mlp import SigmoidMLP
from adv_lightning.models.torchvision_models import TorchvisionModel

__all__ = [
    "Ensemble",
    "InputDropout",
    "LogisticRegression",
    "Maxout",
    "MaxoutMLP",
    "Normalize",
    "Normalized",
    "ShallowRBF",
    "SigmoidMLP",
    "SmallConvNet",
    "SoftmaxRegression",
    "TorchvisionModel",
    "class_means",
]
