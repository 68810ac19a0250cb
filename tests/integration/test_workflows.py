"""The weekly look at the authors' weights runs a command that there is. test_official.py runs it against a server."""
import re
import shlex
from pathlib import Path

import pytest
import yaml

from scripts.benchmarks import convert_official

ROOT = Path(__file__).parents[2]


def test_official_yml_verifies_all_weights_every_week(monkeypatch):
    workflow = yaml.safe_load((ROOT / '.github' / 'workflows' / 'official.yml').read_text(encoding='utf-8'))
    minute, hour, day, month, weekday = workflow[True]['schedule'][0]['cron'].split()  # YAML's 'on'
    assert (day, month) == ('*', '*') and weekday in '0123456'
    assert int(minute) < 60 and int(hour) < 24
    *_, last = workflow['jobs']['verify']['steps']
    _, module, name, *args = shlex.split(last['run'])
    assert (module, name) == ('-m', 'scripts.benchmarks.convert_official')
    asked = []
    monkeypatch.setattr(convert_official, 'verify', lambda names, *rest: asked.extend(names) or True)
    convert_official.main(args)
    assert asked == convert_official.published()


@pytest.mark.parametrize('file', sorted((ROOT / '.github' / 'workflows').glob('*.yml')), ids=lambda file: file.name)
def test_workflows_have_steps_with_rights_to_read_only(file):
    workflow = yaml.safe_load(file.read_text(encoding='utf-8'))
    assert workflow['permissions'] == {'contents': 'read'}
    assert all(job['steps'] for job in workflow['jobs'].values())
    used = [step['uses'] for job in workflow['jobs'].values() for step in job['steps'] if 'uses' in step]
    assert used and all(re.fullmatch(r'[\w./-]+@[0-9a-f]{40}', action) for action in used)  # pinned by commit
