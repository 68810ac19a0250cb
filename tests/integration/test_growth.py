"""Growth: costs are per pixel. No test depends on a time."""
import json

import pytest
import timm

from conftest import markdown_rows, status_of
from scripts.benchmarks import growth as script
from scripts.benchmarks.common import measure


def test_costs_are_per_pixel_and_their_ratio_is_to_the_first_line():
    pixels = [script.Pixel(model, n, size, cost, cost, cost) for model in script.MODELS
              for n, size, cost in [(4, 32, 1.), (1, 64, 2.)]]
    pixels[-1].inference_ns = None  # failed
    tables = [table for text in script.tables(pixels) for table in markdown_rows(text)]
    assert len(tables) == 3
    for table in tables[:2]:
        assert table[2:] == [['4 of 32x32', *['1.00 (1.00)'] * 3], ['1 of 64x64', *['2.00 (2.00)'] * 3]]
    assert tables[2][3][3] == '– (–)'


def test_tiny_run_writes_what_it_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(measure, 'MIN_SECONDS', 1e-9)
    monkeypatch.setattr(script, 'SIZES', (8,))
    monkeypatch.setattr(script, 'BATCHES', (2,))
    monkeypatch.setattr(script, 'create', lambda *_: timm.create_model('wavemix_16_5', dim=8, depth=1))
    monkeypatch.setattr(script.command, 'limit_memory', lambda device: None)  # it would hold for all tests
    stem = tmp_path / 'growth'
    assert status_of(script.main, '--batch-size', 1, '--rounds', 1, '--device', 'cpu', '--output', stem) == 0
    pixels = json.loads(stem.with_suffix('.json').read_text())['pixels']
    assert [(pixel['batch_size'], pixel['image_size']) for pixel in pixels] == 3 * [(1, 32), (2, 32)] + 3 * [(16, 8)]
    for pixel in pixels:
        assert pixel['bytes'] > 8 * 4 and pixel['train_ns'] > 0 and pixel['inference_ns'] > 0 and not pixel['error']
    assert pixels[0]['bytes'] == pytest.approx(pixels[3]['bytes'], rel=0.5)
    assert [table[2][0] for table in markdown_rows(stem.with_suffix('.md').read_text())] == ['1 of 32x32'] * 3
