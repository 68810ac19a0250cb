"""scripts/reports.py: what its users would notice if it were wrong."""
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / 'scripts'
sys.path.insert(0, str(SCRIPTS))
import reports  # noqa: E402


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux ends processes that take too much memory')
def test_an_allocation_beyond_the_free_memory_fails_and_the_process_goes_on():
    code = '''
import re
import torch
from reports import limit_memory
limit_memory()
available = 1024 * int(re.search(r'MemAvailable: *([0-9]+)', open('/proc/meminfo').read()).group(1))
torch.ones(10_000_000)
try:
    torch.empty(available, dtype=torch.uint8)
except RuntimeError as error:
    print(error)
'''
    done = subprocess.run([sys.executable, '-c', code], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0 and "can't allocate memory" in done.stdout, done.stderr


@pytest.mark.parametrize('value, text', [
    (None, '–'), (0.0123456, '0.0123'), (1., '1.00'), (12.345, '12.3'), (1234.5, '1,234'),
    (0.9998, '1.00'), (9.999, '10.0'), (0., '0.00')])
def test_numbers_have_three_digits(value, text):
    assert reports.digits(value) == text


def test_command_can_be_repeated_as_it_is_told(monkeypatch):
    monkeypatch.setenv('MALLOC_MMAP_MAX_', '0')
    monkeypatch.delenv('MALLOC_TRIM_THRESHOLD_', raising=False)
    monkeypatch.setattr(sys, 'argv', ['/somewhere/scripts/demo.py', '--output', 'my demo.png'])
    assert reports.command() == "MALLOC_MMAP_MAX_=0 python scripts/demo.py --output 'my demo.png'"


def test_points_of_families_are_told_apart():
    styles = list(reports.styles(['a', 'b', 'a', 'c', 'b']))
    assert len({(style['color'], style['marker']) for style in styles}) == 5
    assert styles[0]['color'] == styles[2]['color'] != styles[1]['color'] == styles[4]['color'] != styles[3]['color']
