"""The documents say what is so: code runs, commands parse, numbers are those of the models and of hub_configs/."""
import argparse
import hashlib
import re
import runpy
import shlex
import sys
from importlib import import_module
from pathlib import Path

import pytest
import timm
import yaml

from scripts import model_table

ROOT = Path(__file__).parents[2]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
TRAINING = (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8')
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8') for path in sorted(
        [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('docs/results/*.md'), ROOT / 'hub_configs/README.md'])}
CONFIGS = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / 'hub_configs').glob('*.yaml')}
OWN = {name for name in CONFIGS if 'training' in CONFIGS[name]}


def code_blocks(page, language):
    return re.findall(rf'^ *```{language}\n(.*?)```', PAGES[page], re.DOTALL | re.MULTILINE)


def commands(page):
    """The lines of all shell blocks that run one of our scripts: its file, whether it runs as a module, arguments."""
    for block in code_blocks(page, 'sh'):
        for line in block.replace('\\\n', ' ').splitlines():
            words = shlex.split(line, comments=True)
            for i, word in enumerate(words):
                if words[i - 1] == 'python' and word.startswith('scripts/'):
                    yield word, False, words[i + 1:]
                elif words[i - 2:i] == ['python', '-m'] and word.startswith('scripts.'):
                    yield f'{word.replace(".", "/")}.py', True, words[i + 1:]


@pytest.mark.parametrize('page', [  # test_deploy.py runs those of deploy.md
    page for page in PAGES if code_blocks(page, 'python') and page != 'docs/deploy.md'])
def test_python_blocks_run_in_order_and_print_what_they_say(page, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    placeholders = ('hf-hub:', 'ME/NAME', 'TIMM_WAVEMIX')  # need the Hub: test_hub_send.py pulls over its protocol
    blocks = [block for block in code_blocks(page, 'python') if not any(name in block for name in placeholders)]
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert capsys.readouterr().out.splitlines() == re.findall(r'^print\(.*\)  # (.*)$', '\n'.join(blocks), re.MULTILINE)
    if page == 'README.md':
        assert [tuple(m.shape) for m in namespace['maps']] == [(1, 16, 28, 28)] * 2
        assert namespace['embedding'].shape == (1, 16)


@pytest.mark.parametrize('page', [page for page in PAGES if list(commands(page))])
def test_commands_have_arguments_that_the_scripts_take(page, monkeypatch):
    class ParsedError(Exception):
        pass

    def parse_args(self, *args):
        parse_known_args(self, *args)
        raise ParsedError

    def parse_known_args(self, *args):
        _, unknown = self.parse_known_args(*args)
        assert not unknown

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)
    monkeypatch.chdir(ROOT)
    for script, as_module, args in commands(page):
        monkeypatch.setattr(sys, 'argv', [script, *args])
        if args:
            with pytest.raises(ParsedError):
                if as_module:
                    import_module(script.removesuffix('.py').replace('/', '.')).main()
                else:
                    runpy.run_path(script, run_name='__main__')
        assert Path(script).is_file()


def test_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_rows_of_our_weights_are_those_of_the_script():
    assert all(f'{model_table.row(name)}\n' in README for name in OWN)


@pytest.mark.slow  # it runs models of 256x256 pixels
def test_model_tables_are_those_of_the_script():
    shown = re.search(r'<!-- tables: .*? -->\n(.*)<!-- end of tables -->', README, re.DOTALL).group(1)
    assert re.findall(r'(?:^\|.*\n)+', shown, re.MULTILINE) == [f'{table}\n' for table in model_table.tables()]


def test_table_of_trainings_has_the_measured_accuracies():
    table = re.search(r'^\| model \| epochs .*\n((?:\|.*\n)+)', TRAINING, re.MULTILINE).group(1)
    shown = dict(re.findall(r'^\| .*`(\w+)`.*? \| [^|]+ \| [^|]+ \| ([^|]+) \| [^|]+ \|$', table, re.MULTILINE))
    files = [*(ROOT / 'hub_configs' / f'{name}.yaml' for name in OWN), *ROOT.glob('docs/peers/*.metadata.yaml')]
    metrics = {file.name.split('.')[0]: yaml.safe_load(file.read_text())['metrics'] for file in files}
    assert shown == {name: f'{m["top1"]:.2f}' for name, m in metrics.items()}


@pytest.mark.parametrize('page', PAGES)
def test_files_and_headings_that_a_page_names_are_there(page):
    for link in re.findall(r'\]\((?!http)([^)]+)\)', PAGES[page]):
        path, _, anchor = link.partition('#')
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r'^#+ (.*)', target.read_text(encoding='utf-8'), re.MULTILINE)
            assert anchor in [re.sub(r'[^\w -]', '', heading).lower().replace(' ', '-') for heading in headings], link
    if not page.startswith('docs/results/'):
        for path in re.findall(r'\b((?:scripts|docs|tests|hub_configs)/[\w./-]+\.\w+)', PAGES[page]):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize('page', [page for page in PAGES if page.startswith('docs/results/')])
def test_generated_pages_say_so_and_have_their_command(page):
    assert re.match(r'# .*\n\nGenerated, do not edit\.', PAGES[page])
    (script, as_module, args), *_ = commands(page)
    assert as_module and script.startswith('scripts/benchmarks/') and '--redraw' in args


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
    assert row.endswith(f"| {metrics['top1']:.2f} | the authors' claim |")
