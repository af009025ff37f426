import numpy as np
import torch

from lbt.data import load


def test_digits_are_scikit_learns():
    from sklearn.datasets import load_digits

    images, data = load("digits"), load_digits()
    assert (len(images.train_images), len(images.test_images)) == (1437, 360)
    assert torch.equal(images.train_images[:, 0], images.train_images[:, 2])
    share = images.test_labels.bincount() / torch.cat([images.train_labels, images.test_labels]).bincount()
    assert (share - 360 / 1797).abs().max() < 0.01
    ours = torch.cat([images.train_images, images.test_images])[:, 0].double() * 16 / 255
    order = lambda array: sorted(map(tuple, np.rint(array).reshape(len(array), -1).astype(int)))  # noqa: E731
    assert order(ours.numpy()) == order(data.images)
    assert images.train_images.max() == 255
    assert images.fingerprint == "8512cb9611bc575d"  # on every platform


def test_synthetic_is_seeded_sized_and_learnable():
    images = load("synthetic", size=1000, test_size=300, classes=5, resolution=20)
    assert images.train_images.shape == (1000, 3, 20, 20)
    assert images.test_images.shape == (300, 3, 20, 20)
    assert images.train_labels.bincount().tolist() == [200] * 5
    assert images.fingerprint == load("synthetic", size=1000, test_size=300, classes=5, resolution=20).fingerprint
    assert load("synthetic").fingerprint == "0428ecd3bfc5f3d1"  # on every platform
    assert not torch.equal(images.train_images[0], images.train_images[5])  # the noise is a sample's own
    means = torch.stack([images.train_images[images.train_labels == label].float().mean(0) for label in range(5)])
    nearest = torch.cdist(images.test_images.float().flatten(1), means.flatten(1)).argmin(1)
    assert (nearest == images.test_labels).float().mean() > 0.95
