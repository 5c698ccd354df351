"""A project of its own that uses adv_lightning: own net, data of dicts, optimizer and loss."""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits

from adv_lightning import AdversarialModule


class BatchNormNet(torch.nn.Module):
    def __init__(self, hidden: int = 32):
        super().__init__()
        self.net = torch.nn.Sequential(
            torch.nn.Flatten(),
            torch.nn.Linear(64, hidden),
            torch.nn.BatchNorm1d(hidden),
            torch.nn.ReLU(),
            torch.nn.Linear(hidden, 10),
        )

    def forward(self, x):
        return self.net(x)


class DictDigits(torch.utils.data.Dataset):
    def __init__(self, start, stop):
        digits = load_digits()
        self.images, self.labels = digits.images[start:stop], digits.target[start:stop]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {
            "image": torch.tensor(self.images[i] / 16, dtype=torch.float32).unsqueeze(0),
            "label": int(self.labels[i]),
        }


class DictData(LightningDataModule):
    def __init__(self, batch_size: int = 50):
        super().__init__()
        self.save_hyperparameters()
        self.batch_size = batch_size

    def train_dataloader(self):
        return torch.utils.data.DataLoader(DictDigits(0, 1000), self.batch_size, shuffle=True)

    def val_dataloader(self):
        return torch.utils.data.DataLoader(DictDigits(1000, 1301), self.batch_size)

    def test_dataloader(self):
        return torch.utils.data.DataLoader(DictDigits(1301, 1797), self.batch_size)


class Mine(AdversarialModule):
    def __init__(self, smoothing: float = 0.1, **kwargs):
        super().__init__(**kwargs)
        self.smoothing = smoothing

    def unpack(self, batch):
        return batch["image"], batch["label"]

    def loss(self, logits, y):
        return torch.nn.functional.cross_entropy(logits, y, label_smoothing=self.smoothing)

    def configure_optimizers(self):
        return torch.optim.RMSprop(self.parameters(), lr=1e-3)


class TakesNothing(BatchNormNet):
    def __init__(self):
        super().__init__(8)


class TakesClasses(torch.nn.Module):
    def __init__(self, num_classes: int):
        super().__init__()
        self.linear = torch.nn.Linear(64, num_classes)

    def forward(self, x):
        return self.linear(x.flatten(1))


class TakesBoth(TakesClasses):
    def __init__(self, num_classes: int, input_shape: tuple[int, int, int], scale: float = 1.0):
        super().__init__(num_classes)
        self.input_shape = input_shape


def typed_net(num_classes: int, input_shape: list[int], hidden: int = 8) -> torch.nn.Module:
    layers = torch.nn.Linear(torch.Size(input_shape).numel(), hidden), torch.nn.Linear(hidden, num_classes)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers)


def untyped_net(num_classes):
    return TakesClasses(num_classes)


def typed_loss(logits, y) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, y)


def untyped_loss(logits, y):
    return typed_loss(logits, y)


class Broken(torch.nn.Module):
    def __init__(self, file: str = "nowhere/weights.pt", width: int = 0):
        super().__init__()
        if width:
            raise RuntimeError(f"width {width} is too large")
        torch.load(file)


class TakesFunction(torch.nn.Module):
    def __init__(self, make: Callable[[], torch.Tensor] | None = None, several: list[Callable] | None = None):
        super().__init__()
