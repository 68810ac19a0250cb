"""Reports and the frame of commands: what their readers would notice if it were wrong."""
import re
import sys
from pathlib import Path

import pytest
import torch

from conftest import status_of
from scripts.benchmarks import draw_accuracy, efficiency
from scripts.benchmarks.common import command, report


@pytest.mark.skipif(sys.platform != 'linux', reason='only Linux ends processes that take too much memory')
def test_memory_is_limited_to_what_is_free(monkeypatch):
    import resource
    limits = []
    monkeypatch.setattr(resource, 'setrlimit', lambda kind, limit: limits.append((kind, limit[0])))
    command.limit_memory(torch.device('cpu'))
    (kind, limit), = limits
    available = 1024 * int(re.search(r'MemAvailable: *([0-9]+)', Path('/proc/meminfo').read_text()).group(1))
    used = 1024 * int(re.search(r'VmData:\s*(\d+)', Path('/proc/self/status').read_text()).group(1))
    assert kind == resource.RLIMIT_DATA and used < limit < used + available


@pytest.mark.parametrize('value, text', [
    (None, '–'), (0.0123456, '0.0123'), (1., '1.00'), (12.345, '12.3'), (1234.5, '1,234'),
    (0.9998, '1.00'), (9.999, '10.0'), (0., '0.00')])
def test_numbers_have_three_digits(value, text):
    assert report.three_digits(value) == text


def test_command_line_can_be_repeated(monkeypatch):
    monkeypatch.setenv('MALLOC_MMAP_MAX_', '0')
    monkeypatch.delenv('MALLOC_TRIM_THRESHOLD_', raising=False)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setattr(sys, 'argv', ['growth.py', '--output', 'my report'])
    assert command.command_line('growth') == (
        "MALLOC_MMAP_MAX_=0 OMP_NUM_THREADS=1 python -m scripts.benchmarks.growth --output 'my report'")


def test_points_of_families_look_different():
    styles = list(report.marker_styles(['a', 'b', 'a', 'c', 'b']))
    assert len({(style['color'], style['marker']) for style in styles}) == 5
    assert styles[0]['color'] == styles[2]['color'] != styles[1]['color'] == styles[4]['color'] != styles[3]['color']


def test_missing_matplotlib_is_an_error_before_anything_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    monkeypatch.setattr(efficiency, 'measure_sizes', lambda args: pytest.fail('measured'))
    for main in efficiency.main, draw_accuracy.main:
        assert '--group demo' in status_of(main)


def test_a_file_is_never_seen_half_done(tmp_path):
    file = tmp_path / 'a.txt'
    file.write_text('earlier')

    def write(unfinished):
        unfinished.write_text('half')
        raise OSError('disk full')

    with pytest.raises(OSError, match='disk full'):
        command.write_whole(file, write)
    assert file.read_text() == 'earlier'
