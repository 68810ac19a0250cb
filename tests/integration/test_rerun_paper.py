"""rerun_paper.py: rows of the paper's tables through timm's train.py, resumable, and bad input before any training."""
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image
from test_recipes import disk_without_checksums, write_data  # noqa: F401  a fixture

from conftest import markdown_rows, status_of
from scripts.benchmarks import rerun_paper as script
from scripts.benchmarks.common import paper_recipes


@pytest.fixture
def run(tmp_path, capsys):
    """Run the script on data in tmp_path/data; its status or message, or what it prints."""
    (tmp_path / 'timm').mkdir()
    (tmp_path / 'timm' / 'train.py').touch()

    def run(*args, timm=tmp_path / 'timm'):
        status = status_of(
            script.main, '--data-dir', tmp_path / 'data', '--timm', timm, '--output', tmp_path / 'output', '--device',
            'cpu', *args)
        return capsys.readouterr().out if status == 0 else status
    return run


@pytest.fixture(autouse=True)
def no_steps(request, monkeypatch):
    """A step takes 36 seconds, without being measured."""
    if 'real' not in request.node.name:
        monkeypatch.setattr(script, 'update_seconds', lambda *_: 36.)


@pytest.fixture
def fake_train(monkeypatch):
    """A train.py that writes what timm's writes, without training; the commands that it got."""
    calls = []

    def subprocess_run(command, env, stdout, stderr):
        config = command[command.index('-c') + 1]
        folder = Path(config).parent
        calls.append(command)
        epochs = script.yaml.safe_load(Path(config).read_text())['epochs']
        lines = ['epoch,eval_top1,eval_top5', *(
            f'{epoch},{10 * abs(epoch - 1) + len(calls)},{90 + epoch}' for epoch in range(epochs))]
        (folder / 'summary.csv').write_text('\n'.join(lines) + '\n')
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(script.subprocess, 'run', subprocess_run)
    return calls


def test_table_has_best_and_last_epoch_of_the_best_seed_beside_the_paper(run, fake_train, tmp_path):
    write_data('emnist_letters', tmp_path / 'data' / 'emnist_letters')
    args = (
        '--table', 2, '--data-sets', 'emnist_letters', '--models', 'wavemix_lite_128_7', '--epochs', 2, '--seeds', 3)
    out = run(*args)
    assert out.index('hours a training') < out.index('1.00 % and top-5 91.00 %') < out.index('11.00 % and 90.00 %')
    table, = markdown_rows((tmp_path / 'output' / 'table_2.md').read_text(encoding='utf-8'))
    assert table[2] == [
        'Letters', '`wavemix_lite_128_7`', '95.78', '13.00', '3.00', '2.00 ± 1.00', '–', '90.00', '91.00',
        '2 Adam; 2 Adam; 2 Adam']
    assert [command[command.index('--experiment') + 1][-6:] for command in fake_train] == ['seed42', 'seed43', 'seed44']
    run(*args)
    assert len(fake_train) == 3  # what is done is not trained again
    assert 'other settings' in run(*args[:-3], 5) and len(fake_train) == 3


def test_a_training_that_was_cut_off_is_resumed(run, fake_train, tmp_path):
    write_data('emnist_letters', tmp_path / 'data' / 'emnist_letters')
    args = '--table', 2, '--data-sets', 'emnist_letters', '--models', 'wavemix_lite_128_7', '--epochs', 4, '--seeds', 1
    run(*args)
    folder = tmp_path / 'output' / 'emnist_letters.wavemix_lite_128_7.seed42'
    head = 'epoch,eval_top1,eval_top5\n'
    (folder / 'summary.csv').write_text(f'{head}0,5,9\n{head}1,6,9\n')  # resumed once already
    (folder / 'last.pth.tar').touch()
    run(*args)
    assert fake_train[1][-2:] == ['--resume', str(folder / 'last.pth.tar')] and '--resume' not in fake_train[0]


def test_dry_run_prints_the_cost_and_trains_nothing(run, fake_train, tmp_path):
    write_data('emnist_letters', tmp_path / 'data' / 'emnist_letters')
    out = run('--table', 2, '--data-sets', 'emnist_letters', '--models', 'wavemix_lite_128_7', '--dry-run')
    hours = 120 * (1 + 1 / 3) * 36 / 3600  # 64 images of each split, one step for 64, a third of it for the test
    assert f'| {hours:.2f} |' in out and f'{3 * hours:.2f} hours' in out and not fake_train


@pytest.mark.parametrize('name, classes', [('emnist_letters', 20), ('cifar10', 10), ('mnist', 10)])
def test_a_part_has_its_number_of_images_of_all_classes_alike_with_their_labels(
        name, classes, tmp_path, disk_without_checksums):  # noqa: F811
    write_data(name, tmp_path / 'data' / name)
    recipe = paper_recipes.load_paper_recipe(name, tmp_path / 'data')
    splits = recipe.splits(download=False)
    part = paper_recipes.write_part(recipe, splits, 20, tmp_path / 'part')
    for split, whole in zip(part.splits(download=False), splits):
        labels = [label for _, label in split]
        assert len(labels) == 20 and len(set(labels)) == classes
        originals = {image.tobytes(): label for image, label in whole}
        assert [originals[image.tobytes()] for image, _ in split] == labels


def test_the_authors_protocol_trains_without_train_py(run, tmp_path, monkeypatch, disk_without_checksums):  # noqa: F811
    write_data('cifar10', tmp_path / 'data' / 'cifar10')
    monkeypatch.setattr(script.authors_protocol, 'PATIENCE', 1)
    args = (
        '--protocol', 'authors', '--table', 1, '--data-sets', 'cifar10', '--models', 'wavemix_16_5', '--seeds', 1,
        '--images', 20, '--epochs', 2)
    run(*args, timm=tmp_path / 'not_needed')
    (result,) = json.loads((tmp_path / 'output' / 'table_1.json').read_text())['results']
    (epochs,) = result['trainings']
    assert [epoch['optimizer'] for epoch in epochs] == ['AdamW', 'AdamW']
    assert all(0 <= epoch['top1'] <= epoch['top5'] <= 100 for epoch in epochs)
    assert 'other settings' in run(*args[2:], timm=tmp_path / 'timm')  # by the paper's protocol


# Bad input

@pytest.mark.parametrize('table, name, words', [
    (1, 'cifar10', '--dataset-download'),
    (2, 'emnist_letters', 'prepare_paper_data emnist_letters'),
    (3, 'inat2021_mini', 'train_mini/CLASS/'),
    (4, 'imagenet_64', 'image-net.org'),
])
def test_missing_data_say_how_to_get_them_in_which_layout(run, fake_train, table, name, words):
    message = run('--table', table, '--data-sets', name)
    assert name in message and words in message and '\n' not in message and not fake_train


def test_a_folder_without_splits_is_refused(run, tmp_path):
    (tmp_path / 'data' / 'imagenet_64' / 'class').mkdir(parents=True)
    Image.new('RGB', (64, 64)).save(tmp_path / 'data' / 'imagenet_64' / 'class' / '0.png')
    assert str(tmp_path / 'data' / 'imagenet_64') in run('--table', 4)


def test_images_and_models_of_other_channels_are_refused(tmp_path, monkeypatch, disk_without_checksums):  # noqa: F811
    write_data('mnist', tmp_path / 'data' / 'mnist')
    recipe = paper_recipes.load_paper_recipe('mnist', tmp_path / 'data')
    create = paper_recipes.timm.create_model
    monkeypatch.setattr(
        paper_recipes.timm, 'create_model', lambda *args, **kwargs: create(*args, **{**kwargs, 'in_chans': 3}))
    with pytest.raises(ValueError, match=r'3 channels.*mnist\.yaml'):
        paper_recipes.create_model('wavemix_lite_128_7', recipe)
    recipe.settings['input_size'] = [3, 28, 28]
    with pytest.raises(ValueError, match=r'mnist\.yaml'):
        recipe.splits(download=False)


@pytest.mark.parametrize('args, word', [
    (['--table', 2, '--models', 'wavemix_16_5'], 'wavemix_16_5'),
    (['--table', 1, '--data-sets', 'mnist'], 'mnist'),
    (['--table', 1, '--timm', 'nowhere'], 'nowhere/train.py'),
    (['--table', 1, '--seeds', 0], '--seeds'),
])
def test_wrong_arguments_are_named(args, word, capsys):
    assert status_of(script.main, *args) == 2 and word in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_library_is_named(run, fake_train, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'vit_pytorch', None)
    monkeypatch.setattr(paper_recipes.Recipe, 'splits', lambda *_: ([], []))
    message = run('--table', 1, '--data-sets', 'cifar10', '--models', 'vit_128_4x4')
    assert '--group baselines' in message and '\n' not in message and not fake_train


@pytest.mark.parametrize('args, named', [(('mnist', '--images', 20), 'mnist'), (('--images', 65), '--images')])
def test_missing_data_and_too_few_images_are_named_before_a_part_is_written(run, tmp_path, args, named):
    write_data('emnist_letters', tmp_path / 'data' / 'emnist_letters')
    message = run('--table', 2, '--data-sets', 'emnist_letters', *args)
    assert named in message.replace('emnist', '') and not (tmp_path / 'output').exists()


@pytest.mark.slow
def test_the_real_train_script_trains_a_row(run, checkout, tmp_path, disk_without_checksums):  # noqa: F811
    write_data('cifar10', tmp_path / 'data' / 'cifar10')
    out = run(
        '--table', 1, '--data-sets', 'cifar10', '--models', 'wavemix_16_5', '--epochs', 1, '--seeds', 1,
        '--images', 64, timm=checkout)
    assert out.splitlines()[-1] == str(tmp_path / 'output' / 'table_1.md'), out
    report = json.loads((tmp_path / 'output' / 'table_1.json').read_text())
    epoch = report['results'][0]['trainings'][0][0]
    assert 0 <= epoch['top1'] <= 100 and report['images'] == 64
