"""Growth: costs are per pixel. No test depends on a time."""
import json
import sys

import pytest

import growth as script
from conftest import markdown_rows
from lib import measure
from lib.measure import Cost, Speed


def test_growth_is_per_pixel():
    costs, speeds = [], []
    for model in script.MODELS:
        for n, size, total in [(4, 32, 4096), (1, 64, 8192)]:
            costs.append(Cost(model, n, size, saved_bytes={'fp32': total}))
            speeds += [Speed(model, n, size, mode, 'fp32', seconds=[1e-9 * total]) for mode in script.MODES]
    speeds[-1].error = 'out of memory: so it goes'
    tables = [table for text in script.tables(script.Results(costs, speeds)) for table in markdown_rows(text)]
    assert len(tables) == 3
    for table in tables[:2]:
        assert table[2:] == [['4 of 32x32', *['1.00 (1.00)'] * 3], ['1 of 64x64', *['2.00 (2.00)'] * 3]]
    assert tables[2][3][3] == '– (–)'


def test_tiny_run_writes_what_it_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, 'MIN_SECONDS', 1e-9)
    monkeypatch.setattr(script, 'SIZES', (8,))
    monkeypatch.setattr(script, 'BATCHES', (2,))
    files = tmp_path / 'growth.json', tmp_path / 'growth.md'
    options = ['--batch-size', '1', '--rounds', '1', '--device', 'cpu', '--json', files[0], '--output', files[1]]
    monkeypatch.setattr(sys, 'argv', ['growth.py', *map(str, options)])
    script.main()
    costs = json.loads(files[0].read_text())['costs']
    assert {(cost['batch_size'], cost['image_size']) for cost in costs} == {(1, 32), (2, 32), (16, 8)}
    assert [table[2][0] for table in markdown_rows(files[1].read_text(encoding='utf-8'))] == ['1 of 32x32'] * 3


def test_a_missing_folder_is_an_error_before_anything_is_measured(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['growth.py', '--output', 'nowhere/growth.md'])
    with pytest.raises(SystemExit, match='2'):
        script.main()
    assert 'make it, or name another file' in capsys.readouterr().err
