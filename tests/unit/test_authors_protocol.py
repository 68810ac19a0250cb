"""authors_protocol.py: AdamW, then SGD from the best epoch; the mean image; trainings that were cut off."""
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from scripts.benchmarks.common import authors_protocol, paper_recipes
from scripts.benchmarks.common.authors_protocol import Epoch, next_optimizer


def history(**top1):
    return [Epoch(optimizer, value, 100.) for optimizer, values in top1.items() for value in values]


@pytest.mark.parametrize('epochs, optimizer', [
    (history(), 'AdamW'),
    (history(AdamW=[5, 4]), 'AdamW'),  # one epoch without a better one
    (history(AdamW=[5, 4, 5, 4]), 'AdamW'),  # as good counts
    (history(AdamW=[5, 4, 3]), 'SGD'),
    (history(AdamW=[5, 4, 3], SGD=[4]), 'SGD'),  # it gets as many epochs as AdamW had
    (history(AdamW=[5, 4, 3], SGD=[4, 6, 1]), 'SGD'),
    (history(AdamW=[5, 4, 3], SGD=[4, 3]), None),
])
def test_a_stage_ends_after_epochs_without_a_better_one(epochs, optimizer, monkeypatch):
    monkeypatch.setattr(authors_protocol, 'PATIENCE', 2)
    assert next_optimizer(epochs) == optimizer


class Training:
    """A tiny model whose test accuracies are given. It notes its weights and its optimizer before each epoch."""

    def __init__(self, file, monkeypatch, top1=(50., 40., 60., 30.)):
        monkeypatch.setattr(authors_protocol, 'PATIENCE', 1)
        monkeypatch.setattr(authors_protocol, 'evaluate', lambda *_: dict(top1=top1[len(self.done)], top5=90.))
        monkeypatch.setattr(authors_protocol, 'save_state', self.save(authors_protocol.save_state))
        self.file, self.weights, self.done, self.optimizers = file, [], [], []

    def save(self, save_state):
        def save(file, state):
            self.done = state['epochs']
            self.optimizers.append(state['optimizer'])
            save_state(file, state)
        return save

    def __iter__(self):
        self.weights.append(self.model.weight.detach().clone())
        for _ in range(2):
            yield torch.randn(4, 3), torch.randint(5, (4,))

    def run(self, limit=100):
        torch.manual_seed(0)
        self.model = nn.Linear(3, 5)
        self.model.register_forward_hook(lambda module, args, out: self.dtypes.add(out.dtype))
        self.dtypes = set()
        return authors_protocol.train(self.model, self, [], self.file, 1, limit)


def test_sgd_starts_from_the_best_weights_of_adamw(tmp_path, monkeypatch):
    training = Training(tmp_path / 'last.pth.tar', monkeypatch)
    epochs = training.run()
    assert [(epoch.optimizer, epoch.top1) for epoch in epochs] == [
        ('AdamW', 50.), ('AdamW', 40.), ('SGD', 60.), ('SGD', 30.)]
    after_first, before_sgd, after_sgd = training.weights[1:]
    assert torch.equal(before_sgd, after_first) and not torch.equal(before_sgd, after_sgd)
    groups = [state['param_groups'][0] for state in training.optimizers]
    assert [group['lr'] for group in groups] == [0.001] * 4
    assert [group.get('momentum') for group in groups] == [None, None, 0.9, 0.9]
    assert [group['weight_decay'] for group in groups] == [0.01, 0.01, 0, 0]
    assert training.dtypes == {torch.float32}


@pytest.mark.parametrize('limit', [1, 2, 3])
def test_a_training_that_was_cut_off_goes_on_to_the_same_end(tmp_path, monkeypatch, limit):
    whole = Training(tmp_path / 'whole', monkeypatch)
    epochs = whole.run()
    cut = Training(tmp_path / 'cut', monkeypatch)
    assert cut.run(limit) == epochs[:limit] and cut.run() == epochs
    assert torch.equal(cut.model.weight, whole.model.weight)


def test_the_mean_image_of_the_training_set_is_subtracted_from_all(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(90, 28, 28), dtype=np.uint8)
    train, test = pixels[:70], pixels[70:]  # one batch and a part
    for split, images in ('train', train), ('test', test):
        for i, image in enumerate(images):
            folder = tmp_path / 'emnist_letters' / split / f'{i % 2}'
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f'{i:02d}.png')
    recipe = paper_recipes.load_paper_recipe('emnist_letters', tmp_path)
    train_batches, test_batches = authors_protocol.load_batches(recipe, torch.device('cpu'), download=False)
    images, classes = (torch.cat(tensors) for tensors in zip(*test_batches))
    by_class = np.concatenate([test[::2], test[1::2]])
    np.testing.assert_allclose(images[:, 0].numpy(), (by_class - train.mean(0)) / 255, atol=1e-6)
    assert classes.tolist() == [0] * 10 + [1] * 10
    images = torch.cat([images for images, _ in train_batches])
    assert len(images) == 70 and images.mean(0).abs().max() < 1e-6 and images.std() > 0.1
