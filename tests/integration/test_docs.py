"""The README says what is so: its code runs, its numbers are those of the models and of hub_configs/."""
import hashlib
import re
from pathlib import Path

import pytest
import timm
import yaml

import model_table

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text()
CONFIGS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / 'hub_configs').glob('*.yaml')}
OWN = {name for name in CONFIGS if 'training' in CONFIGS[name]}


def test_python_blocks_run_in_order(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r'```python\n(.*?)```', README, re.DOTALL)
    blocks = [block for block in blocks if 'hf-hub:' not in block and '.in1k' not in block]  # those need the Hub
    assert len(blocks) >= 4
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert capsys.readouterr().out == 'Ankle boot\n'
    assert [tuple(m.shape) for m in namespace['maps']] == [(2, 16, 28, 28)] * 2
    assert namespace['embedding'].shape == (2, 16)


def test_model_table_is_that_of_the_script():
    shown = re.search(r'<!-- table: .*? -->\n(.*?)\n<!-- end of table -->', README, re.DOTALL).group(1)
    assert shown == model_table.table()


def test_table_of_trainings_has_the_measured_accuracies():
    table = re.search(r'^\| model \| epochs .*\n((?:\|.*\n)+)', README, re.MULTILINE).group(1)
    shown = {name: accuracies for name, *accuracies in re.findall(
        r'^\| .*`(\w+)`.*? \| [^|]+ \| [^|]+ \| ([^|]+) \| ([^|]+) \| [^|]+ \|$', table, re.MULTILINE)}
    files = [*(ROOT / 'hub_configs' / f'{name}.yaml' for name in OWN), ROOT / 'docs' / 'resnet18.fashion_mnist.yaml']
    metrics = {file.name.split('.')[0]: yaml.safe_load(file.read_text())['metrics'] for file in files}
    assert shown == {
        name: [f'{m["validation_top1"]:.2f}' if 'validation_top1' in m else '–', f'{m["top1"]:.2f}']
        for name, m in metrics.items()}


def test_every_file_that_the_readme_names_is_there():
    links = re.findall(r'\]\((?!http|#)([^)]+)\)', README)
    paths = re.findall(r'\b((?:scripts|docs|tests|hub_configs)/[\w./-]+\.\w+)', README)
    assert links and paths
    for path in {*links, *paths}:
        assert (ROOT / path).exists(), path


def test_every_shipped_weight_file_has_its_config():
    cfgs = [timm.get_pretrained_cfg(name) for name in timm.list_models(module='wavemix', pretrained=True)]
    shipped = {Path(cfg.file) for cfg in cfgs if cfg.file}
    assert {path.stem for path in shipped} == OWN
    for path in shipped:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == CONFIGS[path.stem]['weights']['sha256']


@pytest.mark.parametrize('name', sorted(OWN))
def test_recipe_is_in_the_repository(name):
    assert (ROOT / CONFIGS[name]['training']['recipe']).exists()


def test_every_model_with_weights_has_its_config():
    assert set(CONFIGS) == set(timm.list_models(module='wavemix', pretrained=True))


@pytest.mark.parametrize('name', sorted(set(CONFIGS) - OWN))
def test_figures_of_official_weights_are_marked_as_claims(name):
    metrics = CONFIGS[name]['metrics']
    assert metrics['source'] == "the authors' claim"
    assert f'{metrics["top1"]:.2f}' in timm.get_pretrained_cfg(name).hf_hub_filename  # the authors put it there
    row, = re.findall(rf'^\| `{re.escape(name)}` .*', README, re.MULTILINE)
    assert row.endswith(f'{metrics["top1"]:.2f} % (claim) |')
