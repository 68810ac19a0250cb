"""Reports: what their readers would notice if it were wrong."""
import subprocess
import sys

import pytest

from lib import report
from timm_wavemix.export import RUNTIMES


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux ends processes that take too much memory')
def test_an_allocation_beyond_the_free_memory_fails_and_the_process_goes_on():
    code = '''
import re
import torch
from lib.report import limit_memory
limit_memory()
available = 1024 * int(re.search(r'MemAvailable: *([0-9]+)', open('/proc/meminfo').read()).group(1))
torch.ones(10_000_000)
try:
    torch.empty(available, dtype=torch.uint8)
except RuntimeError as error:
    print(error)
'''
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=report.ROOT / 'scripts/benchmarks', capture_output=True, text=True)
    assert done.returncode == 0 and "can't allocate memory" in done.stdout, done.stderr


@pytest.mark.parametrize('value, text', [
    (None, '–'), (0.0123456, '0.0123'), (1., '1.00'), (12.345, '12.3'), (1234.5, '1,234'),
    (0.9998, '1.00'), (9.999, '10.0'), (0., '0.00')])
def test_numbers_have_three_digits(value, text):
    assert report.three_digits(value) == text


def test_command_line_can_be_repeated(monkeypatch):
    monkeypatch.setenv('MALLOC_MMAP_MAX_', '0')
    monkeypatch.delenv('MALLOC_TRIM_THRESHOLD_', raising=False)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setattr(sys, 'argv', [str(report.ROOT / 'scripts' / 'demo.py'), '--output', 'my demo.png'])
    assert report.command_line() == "MALLOC_MMAP_MAX_=0 OMP_NUM_THREADS=1 python scripts/demo.py --output 'my demo.png'"


def test_there_are_colours_for_every_runtime():
    styles = list(report.marker_styles(['eager', *RUNTIMES]))
    assert len({style['color'] for style in styles}) == 1 + len(RUNTIMES)


def test_points_of_families_look_different():
    styles = list(report.marker_styles(['a', 'b', 'a', 'c', 'b']))
    assert len({(style['color'], style['marker']) for style in styles}) == 5
    assert styles[0]['color'] == styles[2]['color'] != styles[1]['color'] == styles[4]['color'] != styles[3]['color']
