"""DistributedDataParallel of two processes on CPUs."""
import copy
import itertools
from datetime import timedelta

import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel

from conftest import randomize_batch_norms

WORLD_SIZE = 2


MODELS = [  # one of each block with a wavelet
    dict(model_name='wavemix_16_5'),
    dict(model_name='wavemix_lite_128_7', dim=16, depth=3),
    dict(model_name='wavemix_192_16_l3_p4', dim=16, depth=3),
]


def loss(model, x, target):
    return F.cross_entropy(model(x), target)


def check_gradients(rank, model, x, target):
    # Batch norm makes a process's output depend on the rest of its batch, so halves of a batch cannot give the whole
    # batch's gradient, with any model (SyncBatchNorm, the remedy, needs GPUs). With the running statistics the loss is
    # a mean over images, and then they must.
    randomize_batch_norms(model).eval()
    whole, half = copy.deepcopy(model), copy.deepcopy(model)
    parallel = DistributedDataParallel(model)
    loss(whole, x, target).backward()
    x, target = x.chunk(WORLD_SIZE)[rank], target.chunk(WORLD_SIZE)[rank]
    loss(half, x, target).backward()
    loss(parallel, x, target).backward()
    for name, param in model.named_parameters():
        expected = whole.get_parameter(name).grad
        torch.testing.assert_close(param.grad, expected, rtol=1e-6, atol=1e-9, msg=name)
        assert not torch.allclose(half.get_parameter(name).grad, expected), f'{name} has the same gradient in each half'


def check_steps(rank, model, x, target):
    # DistributedDataParallel raises in the second step if a parameter had no gradient in the first.
    parallel = DistributedDataParallel(model, find_unused_parameters=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = copy.deepcopy(model)
    for _ in range(3):
        optimizer.zero_grad()
        loss(parallel, x.chunk(WORLD_SIZE)[rank], target.chunk(WORLD_SIZE)[rank]).backward()
        optimizer.step()
    for name, param in model.named_parameters():
        assert not torch.equal(param, before.get_parameter(name)), f'{name} was not trained'
        copies = [torch.empty_like(param) for _ in range(WORLD_SIZE)]
        dist.all_gather(copies, param.detach())
        assert torch.equal(*copies), f'{name} differs between the processes'


def work(rank, store):
    torch.set_num_threads(1)
    dist.init_process_group(
        'gloo', init_method=f'file://{store}', rank=rank, world_size=WORLD_SIZE, timeout=timedelta(seconds=60))
    for kwargs, check in itertools.product(MODELS, [check_gradients, check_steps]):
        torch.manual_seed(0)
        model = timm.create_model(num_classes=10, proj_drop_rate=0., **kwargs).double().train()
        check(rank, model, torch.randn(4, 3, 15, 18).double(), torch.arange(4))
    dist.destroy_process_group()


@pytest.mark.timeout(400)
def test_two_processes_have_the_gradients_of_the_whole_batch_and_stay_equal(tmp_path):
    mp.spawn(work, (tmp_path / 'store',), nprocs=WORLD_SIZE)
