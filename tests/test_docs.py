"""The README says what is so: its code runs, its numbers are those of the models and of hub_configs/."""
import hashlib
import re
from pathlib import Path

import pytest
import timm
import yaml

ROOT = Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text()
CONFIGS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / 'hub_configs').glob('*.yaml')}


def test_python_blocks_run_in_order(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    blocks = [block for block in re.findall(r'```python\n(.*?)```', README, re.DOTALL) if 'hf-hub:' not in block]
    assert len(blocks) >= 4
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert capsys.readouterr().out == 'Ankle boot\n'
    assert [tuple(m.shape) for m in namespace['maps']] == [(2, 16, 28, 28)] * 2
    assert namespace['embedding'].shape == (2, 16)


def test_model_table_is_that_of_the_script(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'scripts')
    import model_table
    shown = re.search(r'<!-- table: .*? -->\n(.*?)\n<!-- end of table -->', README, re.DOTALL).group(1)
    assert shown == model_table.table()


def test_every_file_that_the_readme_names_is_there():
    links = re.findall(r'\]\((?!http)([^)]+)\)', README)
    paths = re.findall(r'\b((?:scripts|docs|tests|hub_configs)/[\w./-]+\.\w+)', README)
    assert links and paths
    for path in {*links, *paths}:
        assert (ROOT / path).exists(), path


def test_every_shipped_weight_file_has_its_config():
    shipped = {Path(timm.get_pretrained_cfg(name).file) for name in timm.list_models(module='wavemix', pretrained=True)}
    assert {path.stem for path in shipped} == set(CONFIGS)
    for path in shipped:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == CONFIGS[path.stem]['weights']['sha256']


@pytest.mark.parametrize('name', CONFIGS)
def test_recipe_is_in_the_repository(name):
    assert (ROOT / CONFIGS[name]['training']['recipe']).exists()
