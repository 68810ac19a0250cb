"""docs/wavemix.ipynb runs from top to bottom, and its outputs are those of a run."""
import os
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / 'docs' / 'wavemix.ipynb'


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == 'code']


def text_of(notebook):
    return ''.join(output.get('text', '') for cell in code_cells(notebook) for output in cell.outputs)


def pictures(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return sum('image/png' in output.get('data', {}) for output in outputs)


def test_committed_outputs_are_those_of_one_run_without_traces_of_a_machine():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert [cell.execution_count for cell in code_cells(notebook)] == list(range(1, len(code_cells(notebook)) + 1))
    assert pictures(notebook) >= 5
    text = text_of(notebook)
    assert 'CPU seconds' in text and 'README.md' in text
    assert not any(word in text for word in ('Traceback', '/tmp', str(Path.home()), str(ROOT)))
    assert NOTEBOOK.stat().st_size < 1e6


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_notebook_runs_and_gives_the_same_kind_of_outputs(monkeypatch):
    nbclient = pytest.importorskip('nbclient')
    committed = nbformat.read(NOTEBOOK, as_version=4)
    monkeypatch.setenv('PYTHONPATH', f'{ROOT}{os.pathsep}{os.environ.get("PYTHONPATH", "")}')
    executed = nbformat.from_dict(committed)
    nbclient.NotebookClient(
        executed, timeout=900, kernel_name='python3', resources={'metadata': {'path': str(NOTEBOOK.parent)}}).execute()
    assert pictures(executed) >= 5
    for fact in 'CPU seconds', 'MB, logits differ', 'README.md':
        assert fact in text_of(executed)
